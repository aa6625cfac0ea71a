//! `tbg wallet`: throwaway keys, to sign in without a wallet program.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressType, BtcAddress, Network};
use tbg_core::config::Settings;
use tbg_core::random::{self, SystemEntropy};

use crate::terminal::{say, tell};

/// Makes throwaway keys and signs with them, for trying the API out and for tests. Keep no money on such a
/// key: it is printed, and a key behind --key stands in the history of your shell.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg wallet new                                                 a key and its address
  tbg wallet sign --key-file wallet --challenge challenge.json   sign what POST /auth/challenge answered
  tbg wallet sign --key WIF 'any text'

A whole sign-in:
  (umask 077; tbg wallet new | tee wallet)
  curl -s localhost:8000/api/v1/auth/challenge -H 'Content-Type: application/json' \\
       -d '{\"btc_address\":\"ADDRESS\"}' > challenge.json
  tbg wallet sign --key-file wallet --challenge challenge.json
  curl -s localhost:8000/api/v1/auth/verify -H 'Content-Type: application/json' \\
       -d '{\"btc_address\":\"ADDRESS\",\"nonce\":\"NONCE OF challenge.json\",\"signature\":\"SIGNATURE\"}'")]
pub struct Wallet {
    /// What to do.
    #[command(subcommand)]
    pub action: WalletAction,
}

/// Uses of a throwaway key.
#[derive(Subcommand)]
pub enum WalletAction {
    /// Make a key; prints it (WIF) and its address
    New(New),
    /// Sign a text or a challenge; prints the signature
    Sign(Sign),
}

/// Which key to make.
#[derive(Args)]
pub struct New {
    /// Which address to show; the key serves all of them
    #[arg(long = "type", value_enum, default_value_t = Kind::P2wpkh)]
    pub kind: Kind,
    /// mainnet, testnet, signet or regtest; by default TBG_BTC_NETWORK
    #[arg(long)]
    pub network: Option<Network>,
}

/// Signs exactly the bytes of the text: a line break at its end counts. The signature goes to standard
/// output, the address that it is for to standard error.
#[derive(Args)]
#[command(after_help = "Examples:
  tbg wallet sign --key WIF 'Trust no one'
  printf %s 'Trust no one' | tbg wallet sign --key WIF -
  tbg wallet sign --key-file wallet --type p2tr --challenge challenge.json
  curl -s … | tbg wallet sign --key-file wallet --challenge -")]
pub struct Sign {
    /// The private key, as `tbg wallet new` prints it; all users of this machine can see it meanwhile
    #[arg(long, value_name = "WIF", required_unless_present = "key_file", conflicts_with = "key_file")]
    pub key: Option<String>,
    /// A file (`-`: standard input) with the private key, or with what `tbg wallet new` printed
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The type of the address that signs
    #[arg(long = "type", value_enum, default_value_t = Kind::P2wpkh)]
    pub kind: Kind,
    /// Form of the signature; by default bip322, and bip137 for p2pkh
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// mainnet, testnet, signet or regtest; by default TBG_BTC_NETWORK
    #[arg(long)]
    pub network: Option<Network>,
    /// A file (`-`: standard input) with the JSON answer of a challenge, whose message is signed
    #[arg(long, value_name = "FILE", conflicts_with = "message")]
    pub challenge: Option<PathBuf>,
    /// The text, or `-` to read it from standard input
    #[arg(required_unless_present = "challenge")]
    pub message: Option<String>,
}

/// Address types that one key can sign for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Native SegWit, bc1q…
    #[value(name = "p2wpkh")]
    P2wpkh,
    /// Taproot, bc1p…
    #[value(name = "p2tr")]
    P2tr,
    /// SegWit inside a script hash, 3…
    #[value(name = "p2sh")]
    P2sh,
    /// The oldest kind, 1…
    #[value(name = "p2pkh")]
    P2pkh,
}

impl Kind {
    fn address_type(self) -> AddressType {
        match self {
            Self::P2wpkh => AddressType::P2wpkh,
            Self::P2tr => AddressType::P2tr,
            Self::P2sh => AddressType::P2sh,
            Self::P2pkh => AddressType::P2pkh,
        }
    }
}

/// Forms of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// What current wallets make
    #[value(name = "bip322")]
    Bip322,
    /// 65 bytes, as hardware wallets make them; not for p2tr
    #[value(name = "bip137")]
    Bip137,
}

pub fn run(args: &Wallet, settings: &Settings) -> anyhow::Result<()> {
    match &args.action {
        WalletAction::New(new) => make(new, settings),
        WalletAction::Sign(sign) => print_signature(sign, settings),
    }
}

fn make(args: &New, settings: &Settings) -> anyhow::Result<()> {
    let network = args.network.unwrap_or(settings.btc_network);
    let key = Key::from_secret(random::bytes::<32>(&SystemEntropy)).context("not a key: try again")?;
    let address = address_of(&key, args.kind, network)?;
    say!("address  {}\nkey      {}", address.as_str(), key.to_wif(network))?;
    tell!("For tests only: put no money on this key.");
    Ok(())
}

fn print_signature(args: &Sign, settings: &Settings) -> anyhow::Result<()> {
    let network = args.network.unwrap_or(settings.btc_network);
    let message = match (&args.challenge, args.message.as_deref()) {
        (Some(file), _) => challenge_message(&read(file)?)?,
        (None, Some("-")) => read(Path::new("-"))?,
        (None, text) => text.unwrap_or_default().to_owned(),
    };
    let key = signing_key(args)?;
    let address = address_of(&key, args.kind, network)?;
    let signature = sign(&key, args.kind, args.format, network, &message)?;
    tell!("signed by {}", address.as_str());
    say!("{signature}")
}

fn sign(
    key: &Key,
    kind: Kind,
    format: Option<Format>,
    network: Network,
    message: &str,
) -> anyhow::Result<String> {
    let usual = if kind == Kind::P2pkh { Format::Bip137 } else { Format::Bip322 };
    match format.unwrap_or(usual) {
        Format::Bip137 if kind == Kind::P2tr => bail!("taproot addresses sign with --format bip322 only"),
        Format::Bip137 => Ok(key.sign_compact(message, kind.address_type())),
        Format::Bip322 => key
            .sign_bip322(message, kind.address_type(), network)
            .context("this address type does not sign that way: try --format bip137"),
    }
}

fn signing_key(args: &Sign) -> anyhow::Result<Key> {
    match (&args.key, &args.key_file) {
        (Some(wif), _) => parse_key(wif),
        (None, Some(file)) => parse_key(key_in(&read(file)?)),
        (None, None) => bail!("no key is given: use --key-file or --key"),
    }
}

/// The key in the text of a file: it stands alone, or behind its name as `tbg wallet new` prints it.
fn key_in(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("key ")).unwrap_or(text)
}

/// Never quotes the key.
fn parse_key(wif: &str) -> anyhow::Result<Key> {
    let Ok(key) = Key::from_wif(wif.trim()) else {
        bail!("this is not a private key: expected WIF, as `tbg wallet new` prints it");
    };
    Ok(key)
}

fn address_of(key: &Key, kind: Kind, network: Network) -> anyhow::Result<BtcAddress> {
    key.address(kind.address_type(), network)
        .context("this key has no such address: an uncompressed key has p2pkh only")
}

/// Exactly the bytes of a file, or of standard input for `-`.
fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input is not a text")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn challenge_message(json: &str) -> anyhow::Result<String> {
    let answer: serde_json::Value = serde_json::from_str(json).context("the challenge is not JSON")?;
    let message = answer.get("message").and_then(serde_json::Value::as_str);
    Ok(message.context("the challenge has no `message`: is it the answer of /auth/challenge?")?.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        wallet: Wallet,
    }

    fn parsed(args: &[&str]) -> Result<Sign, clap::Error> {
        let program = Program::try_parse_from(["wallet", "sign"].iter().chain(args))?;
        match program.wallet.action {
            WalletAction::Sign(sign) => Ok(sign),
            WalletAction::New(_) => unreachable!("the arguments say sign"),
        }
    }

    fn signing(args: &[&str]) -> Result<Sign, clap::Error> {
        parsed(&[["--key", "k"].as_slice(), args].concat())
    }

    #[test]
    fn a_text_or_a_challenge_but_not_both() {
        assert_eq!(signing(&["a text"]).unwrap().message.as_deref(), Some("a text"));
        assert_eq!(signing(&["-"]).unwrap().message.as_deref(), Some("-"));
        assert_eq!(signing(&["--challenge", "-"]).unwrap().challenge, Some(PathBuf::from("-")));
        assert_eq!(signing(&["--type", "p2tr", "x"]).unwrap().kind, Kind::P2tr);
        assert!(signing(&[]).is_err());
        assert!(signing(&["--challenge", "f", "a text"]).is_err());
    }

    #[test]
    fn a_key_is_given_on_the_command_line_or_in_a_file_but_not_both() {
        assert_eq!(parsed(&["--key", "k", "x"]).unwrap().key.as_deref(), Some("k"));
        assert_eq!(parsed(&["--key-file", "f", "x"]).unwrap().key_file, Some(PathBuf::from("f")));
        assert!(parsed(&["x"]).is_err());
        assert!(parsed(&["--key", "k", "--key-file", "f", "x"]).is_err());
    }

    #[test]
    fn a_file_holds_a_key_alone_or_as_it_was_printed() {
        assert_eq!(key_in("WIF\n").trim(), "WIF");
        assert_eq!(key_in("address  bcrt1q\nkey      WIF\n").trim(), "WIF");
    }

    #[test]
    fn the_message_of_a_challenge_is_taken_as_it_is() {
        let message = challenge_message(r#"{"nonce":"00","message":"a\n\nb","expires_in":300}"#);
        assert_eq!(message.unwrap(), "a\n\nb");
        assert!(challenge_message(r#"{"detail":"Not Found"}"#).is_err());
        assert!(challenge_message("not json").is_err());
    }

    #[test]
    fn a_bad_key_is_not_quoted() {
        let Err(error) = parse_key("secret-key") else { panic!("accepted") };
        assert!(!error.to_string().contains("secret-key"));
    }

    #[test]
    fn taproot_does_not_sign_the_old_way() {
        let key = Key::from_secret([7; 32]).unwrap();
        let signed = |kind, format| sign(&key, kind, format, Network::Regtest, "x");
        assert!(signed(Kind::P2tr, Some(Format::Bip137)).is_err());
        for kind in [Kind::P2tr, Kind::P2wpkh, Kind::P2sh, Kind::P2pkh] {
            assert!(signed(kind, None).is_ok(), "{kind:?}");
        }
    }
}
