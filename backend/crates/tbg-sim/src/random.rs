//! Seeded random streams and the few distributions that the simulation needs.
//!
//! The distributions are written out here so that the bytes of a simulation depend on ChaCha8
//! alone and not on the release of a library that samples.

use std::fmt::Write;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for; streams of different purpose never share numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The bytes of an address.
    Address = 1,
    /// What a miner is: name, hashrate, device.
    Identity = 2,
    /// What a miner does: shares, sessions.
    Behaviour = 3,
    /// What the pool and the network do.
    Pool = 4,
}

/// One random stream.
#[derive(Clone, Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of (`seed`, `purpose`, `index`).
    pub(crate) fn new(seed: u64, purpose: Purpose, index: u32) -> Self {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = purpose as u8;
        key[16..20].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in (0, 1], never 0: it may be divided by and its logarithm exists.
    pub(crate) fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        ((self.0.next_u64() >> 11) + 1) as f64 * STEP
    }

    /// True with probability `p`; never for 0, always for 1.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() <= p
    }

    /// Uniform in `0..n` (0 for `n` = 0); the bias of at most n / 2^32 does not matter here.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, choices: &[T; N]) -> T {
        const { assert!(N > 0, "nothing to pick from") };
        choices[self.below(N as u32) as usize]
    }

    /// Exponentially distributed with the given mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Standard normal (Box-Muller, one of the pair).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// `N` random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A block hash in display order: 64 hex digits, 20 of them leading zeros.
    pub(crate) fn block_hash(&mut self) -> String {
        let mut hash = "0".repeat(20);
        for byte in self.bytes::<22>() {
            // Writing to a `String` cannot fail.
            let _ = write!(hash, "{byte:02x}");
        }
        hash
    }
}
