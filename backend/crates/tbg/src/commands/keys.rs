//! `tbg keys`: the RSA keys that sign tokens.

use std::io::Read as _;

use anyhow::Context as _;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use pem::Pem;

use crate::cli::KeyAction;
use crate::terminal::say;

/// What this program makes; 2,048 bits are accepted too.
const SIZE: KeySize = KeySize::Rsa3072;

pub fn run(action: KeyAction) -> anyhow::Result<()> {
    match action {
        KeyAction::New => say!("{}", new_private_key(SIZE)?.trim_end_matches('\n')),
        KeyAction::Public => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading the key from standard input")?;
            say!("{}", public_key(&text)?.trim_end_matches('\n'))
        }
    }
}

/// A new private key, PKCS #8 in PEM.
///
/// # Errors
/// When the system gives no randomness.
pub fn new_private_key(size: KeySize) -> anyhow::Result<String> {
    let pair = KeyPair::generate(size).map_err(|_| anyhow::anyhow!("cannot make an RSA key"))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| anyhow::anyhow!("cannot encode the key"))?;
    Ok(pem::encode(&Pem::new("PRIVATE KEY", der.as_ref())))
}

fn public_key(private_pem: &str) -> anyhow::Result<String> {
    let parsed = pem::parse(private_pem).context("standard input is not a key in PEM")?;
    let pair = match parsed.tag() {
        "PRIVATE KEY" => KeyPair::from_pkcs8(parsed.contents()),
        _ => KeyPair::from_der(parsed.contents()),
    };
    let pair = pair.map_err(|_| anyhow::anyhow!("standard input is not an RSA private key"))?;
    let der: PublicKeyX509Der<'_> =
        pair.public_key().as_der().map_err(|_| anyhow::anyhow!("cannot encode the key"))?;
    Ok(pem::encode(&Pem::new("PUBLIC KEY", der.as_ref())))
}
