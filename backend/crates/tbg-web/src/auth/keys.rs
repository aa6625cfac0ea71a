//! The keys that sign and verify tokens (contract `auth-users.md` §3).
//!
//! RS256 is pinned and `kid` is required: neither `none`, nor HS256 with the public key, nor a key that the
//! token brings along can pass.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::AuthMethod;

/// Seconds that an expired token is still accepted.
const EXPIRY_LEEWAY_SECONDS: i64 = 5;
/// RSA moduli below 2,048 bits are refused.
const MIN_MODULUS_BASE64_CHARS: usize = 256 * 8 / 6;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Calls the API.
    Access,
    /// Is exchanged for new tokens.
    Refresh,
}

/// What a token says. No authority: that is read from the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// The user's id, decimal.
    pub sub: String,
    /// The user's address when the token was made; informational.
    pub address: Option<String>,
    /// How this session signed in.
    pub auth_method: AuthMethod,
    /// access or refresh.
    #[serde(rename = "type")]
    pub kind: TokenKind,
    /// Issued, Unix seconds.
    pub iat: i64,
    /// Expires, Unix seconds.
    pub exp: i64,
    /// The token's id; of a refresh token, its row.
    pub jti: Uuid,
    /// The session.
    pub sid: Uuid,
    /// The original sign-in, Unix seconds.
    pub auth_time: i64,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not ours, tampered with, of another kind, or unreadable.
    #[error("not a token of ours")]
    Invalid,
    /// Ours, but too old.
    #[error("the token has expired")]
    Expired,
}

/// A public key as `/.well-known/jwks.json` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublicKey {
    /// Always RSA.
    #[schema(value_type = String)]
    kty: &'static str,
    /// Always sig.
    #[serde(rename = "use")]
    #[schema(value_type = String)]
    purpose: &'static str,
    /// Always RS256.
    #[schema(value_type = String)]
    alg: &'static str,
    /// RFC 7638 thumbprint.
    kid: String,
    /// Modulus, base64url.
    n: String,
    /// Exponent, base64url.
    e: String,
}

/// One signing key and all keys that verify.
pub struct Keys {
    signer: EncodingKey,
    kid: String,
    verifiers: HashMap<String, DecodingKey>,
    public: Vec<PublicKey>,
    validation: Validation,
    issuer: String,
    audience: String,
}

impl Keys {
    /// Reads the signing key (PEM, PKCS #8 or PKCS #1) and further public keys (PEM).
    ///
    /// # Errors
    /// When a key is not an RSA key of at least 2,048 bits. The message quotes nothing.
    pub fn new(
        private_pem: &str,
        public_pems: &[String],
        issuer: &str,
        audience: &str,
    ) -> anyhow::Result<Self> {
        let signer = EncodingKey::from_rsa_pem(private_pem.as_bytes())
            .map_err(|_| anyhow::anyhow!("TBG_JWT_PRIVATE_KEY is not an RSA private key in PEM"))?;
        let own = Jwk::from_encoding_key(&signer, Algorithm::RS256)
            .map_err(|_| anyhow::anyhow!("TBG_JWT_PRIVATE_KEY is not a usable RSA key"))?;
        let mut keys = Self {
            kid: thumbprint(&own)?,
            signer,
            verifiers: HashMap::new(),
            public: Vec::new(),
            validation: validation(issuer, audience),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        };
        keys.add(&own)?;
        for pem in public_pems {
            let key = DecodingKey::from_rsa_pem(pem.as_bytes())
                .ok()
                .and_then(|key| Jwk::from_decoding_key(&key, Some(Algorithm::RS256)).ok())
                .context("a file of TBG_JWT_VERIFY_KEYS_DIR is not an RSA public key in PEM")?;
            keys.add(&key)?;
        }
        Ok(keys)
    }

    fn add(&mut self, jwk: &Jwk) -> anyhow::Result<()> {
        let AlgorithmParameters::RSA(parameters) = &jwk.algorithm else { bail!("a token key is not RSA") };
        if parameters.n.len() < MIN_MODULUS_BASE64_CHARS {
            bail!("a token key has fewer than 2048 bits");
        }
        let kid = thumbprint(jwk)?;
        if self.verifiers.contains_key(&kid) {
            return Ok(());
        }
        let verifier = DecodingKey::from_rsa_components(&parameters.n, &parameters.e)
            .map_err(|_| anyhow::anyhow!("a token key is not usable"))?;
        self.verifiers.insert(kid.clone(), verifier);
        self.public.push(PublicKey {
            kty: "RSA",
            purpose: "sig",
            alg: "RS256",
            kid,
            n: parameters.n.clone(),
            e: parameters.e.clone(),
        });
        Ok(())
    }

    /// Issuer and audience of the tokens made here.
    #[must_use]
    pub fn issuer_and_audience(&self) -> (&str, &str) {
        (&self.issuer, &self.audience)
    }

    /// All public keys, the signing one first.
    #[must_use]
    pub fn public(&self) -> &[PublicKey] {
        &self.public
    }

    /// Signs.
    ///
    /// # Errors
    /// When the key cannot sign, which is a fault of ours.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.signer).context("signing a token")
    }

    /// The claims of a token of `kind` that is valid at `now`.
    ///
    /// # Errors
    /// See [`TokenFault`].
    pub fn verify(&self, token: &str, kind: TokenKind, now: DateTime<Utc>) -> Result<Claims, TokenFault> {
        let claims = self.verify_at_any_age(token, kind)?;
        if is_expired(&claims, now) { Err(TokenFault::Expired) } else { Ok(claims) }
    }

    /// The same, however old the token is: for the sign-out of an expired session.
    ///
    /// # Errors
    /// [`TokenFault::Invalid`].
    pub fn verify_at_any_age(&self, token: &str, kind: TokenKind) -> Result<Claims, TokenFault> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::Invalid)?;
        if header.alg != Algorithm::RS256 {
            return Err(TokenFault::Invalid);
        }
        let key = header.kid.and_then(|kid| self.verifiers.get(&kid)).ok_or(TokenFault::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|_| TokenFault::Invalid)?
            .claims;
        if claims.kind == kind { Ok(claims) } else { Err(TokenFault::Invalid) }
    }
}

/// Whether a token with these claims is too old at `now`.
pub(super) fn is_expired(claims: &Claims, now: DateTime<Utc>) -> bool {
    now.timestamp() > claims.exp.saturating_add(EXPIRY_LEEWAY_SECONDS)
}

/// Time is compared by us, on the injected clock. A future `iat` is no reason to refuse.
fn validation(issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

fn thumbprint(jwk: &Jwk) -> anyhow::Result<String> {
    jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| anyhow::anyhow!("a token key has no thumbprint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 §3.1.
    #[test]
    fn the_key_id_is_the_thumbprint_of_rfc_7638() {
        let jwk: Jwk = serde_json::from_str(
            r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#,
        )
        .unwrap();
        assert_eq!(thumbprint(&jwk).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
