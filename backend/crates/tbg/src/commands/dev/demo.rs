//! The demo user: a throwaway wallet under the game's folder, for which the first simulated miner mines.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::rsa::KeySize;
use tbg_bitcoin::wallet::Key;
use tbg_bitcoin::{AddressType, Network};
use tbg_core::random::{SystemEntropy, bytes};

use crate::commands::keys::new_private_key;

/// A wallet that anybody at this machine may use.
pub struct Demo {
    /// Its P2WPKH address.
    pub address: String,
    /// The file with its private key (WIF).
    pub key_file: PathBuf,
}

impl Demo {
    /// The wallet of earlier runs, or a new one.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is not a key.
    pub fn load(dir: &Path, network: Network) -> anyhow::Result<Self> {
        let key_file = dir.join("demo_wallet");
        let make = || {
            let secret = Key::from_secret(bytes(&SystemEntropy)).context("cannot make a wallet")?;
            Ok(secret.to_wif(network))
        };
        let wif = read_or_make(&key_file, make)?;
        let key =
            Key::from_wif(wif.trim()).ok().with_context(|| format!("{} is not a key", key_file.display()))?;
        let address = key.address(AddressType::P2wpkh, network).context("the key has no address")?;
        Ok(Self { address: address.as_str().to_owned(), key_file })
    }
}

/// The file with the key that signs tokens, made at the first start: sessions outlive a restart.
///
/// # Errors
/// When it cannot be written.
pub fn signing_key(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("jwt_private_key.pem");
    read_or_make(&path, || new_private_key(KeySize::Rsa2048))?;
    Ok(path)
}

/// The file with the key behind the lottery's salts, made at the first start.
///
/// # Errors
/// When it cannot be written.
pub fn lottery_key(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("lottery_salt_key");
    read_or_make(&path, || Ok(tbg_games::rules::lottery::hex(&bytes::<32>(&SystemEntropy))))?;
    Ok(path)
}

/// The text of a file that only its owner may read; makes it if it is missing.
fn read_or_make(path: &Path, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    if path.exists() {
        return std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    }
    let text = make()?;
    // Half a key must not be taken for one at the next start.
    let partial = path.with_extension("partial");
    let written = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    written().with_context(|| format!("writing {}", path.display()))?;
    Ok(text)
}
