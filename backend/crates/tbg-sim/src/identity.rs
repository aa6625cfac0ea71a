//! Who mines: addresses, worker names, hashrates and devices, all derived from the seed.

use bitcoin::hashes::Hash;
use bitcoin::{Address, PubkeyHash, ScriptHash, WitnessProgram, WitnessVersion};
use tbg_bitcoin::Network;

use crate::config::SimConfig;
use crate::random::{Purpose, Random};

/// Part of the miners that are a further rig of the address before them.
const SAME_ADDRESS: f64 = 0.2;
/// Most rigs on one address.
const MAX_RIGS: u32 = 3;
/// Longest username, in characters (contract `mining.md` §1).
const MAX_NAME: usize = 128;
const MEDIAN_HS: f64 = 1.2e12;
const MIN_HS: f64 = 0.4e12;
const MAX_HS: f64 = 400e12;

/// One worker of the pool, as it was made up from the seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Miner {
    /// Payout address, the `user` of its events.
    pub address: String,
    /// The full username as the pool sends it: the address, or the address with a worker name
    /// after `.` or `_`; at most 128 characters of `[A-Za-z0-9_.-]`, unique in the simulation.
    pub worker: String,
    /// True hashrate in H/s.
    pub hashrate_hs: f64,
    /// Which rig of its address it is, from 1 to 3.
    pub rig: u32,
    /// Region of the pool that it mines at.
    pub region: &'static str,
    /// User agent of its firmware.
    pub useragent: &'static str,
    /// Its address on the internet, from the ranges for documentation (RFC 5737).
    pub ip: String,
    /// Whether its firmware offers version rolling.
    pub asicboost: bool,
}

/// All miners of a simulation. The first n of a larger population are the population of n.
pub(crate) fn population(config: &SimConfig) -> Vec<Miner> {
    let mut owner = 0;
    let mut rig = 0;
    (0..config.miners)
        .map(|index| {
            let mut random = Random::new(config.seed, Purpose::Identity, index);
            let further = random.chance(SAME_ADDRESS);
            if index > 0 && further && rig < MAX_RIGS {
                rig += 1;
            } else {
                owner = index;
                rig = 1;
            }
            let known = config.first_address.clone().filter(|_| owner == 0);
            let address = known.unwrap_or_else(|| address_of(config.seed, owner, config.network));
            miner(address, rig, &mut random)
        })
        .collect()
}

fn miner(address: String, rig: u32, random: &mut Random) -> Miner {
    let worker = worker_name(&address, rig, random);
    let hashrate_hs = hashrate(random);
    let net = random.pick(&["192.0.2", "198.51.100", "203.0.113"]);
    Miner {
        worker,
        hashrate_hs,
        rig,
        region: random.pick(&["default", "eu-west", "eu-west", "us-east", "ap-south"]),
        useragent: useragent(hashrate_hs, random),
        ip: format!("{net}.{}", 1 + random.below(254)),
        asicboost: random.chance(0.8),
        address,
    }
}

/// The address number `index` of a simulation with `seed`, valid on `network`: seven in ten are
/// P2WPKH, the others P2PKH, P2SH and P2TR. Its keys are random bytes that nobody holds.
///
/// A miner that is a further rig has the address of an earlier index, see [`Miner::rig`].
#[must_use]
pub fn address_of(seed: u64, index: u32, network: Network) -> String {
    let network = match network {
        Network::Mainnet => bitcoin::Network::Bitcoin,
        Network::Testnet => bitcoin::Network::Testnet,
        Network::Signet => bitcoin::Network::Signet,
        Network::Regtest => bitcoin::Network::Regtest,
    };
    let mut random = Random::new(seed, Purpose::Address, index);
    let kind = random.below(10);
    let hash = random.bytes::<20>();
    let address = match kind {
        0 => Address::p2pkh(PubkeyHash::from_byte_array(hash), network),
        1 => Address::p2sh_from_hash(ScriptHash::from_byte_array(hash), network),
        _ => {
            let program = if kind == 2 {
                WitnessProgram::new(WitnessVersion::V1, &random.bytes::<32>())
            } else {
                WitnessProgram::new(WitnessVersion::V0, &hash)
            };
            match program {
                Ok(program) => Address::from_witness_program(program, network),
                // Both lengths are legal, so this arm is dead; it keeps the function total.
                Err(_) => Address::p2pkh(PubkeyHash::from_byte_array(hash), network),
            }
        }
    };
    address.to_string()
}

/// A username of one of the shapes that miners really use. Only a first rig may be nameless, and
/// every other shape ends in the number of the rig, so the names of an address differ.
fn worker_name(address: &str, rig: u32, random: &mut Random) -> String {
    let number = random.below(1000);
    match random.below(10) {
        0 | 1 if rig == 1 => address.to_owned(),
        0..=3 => format!("{address}.rig{rig}"),
        4 => format!("{address}_rig{rig}"),
        5 => format!("{address}.rig.{rig}"),
        6 => format!("{address}.{rig}"),
        7 => format!("{address}.bitaxe-gamma-{rig}"),
        8 => format!("{address}_S19j-Pro_{number}-{rig}"),
        _ => long_name(address, rig, random),
    }
}

/// A name of 100 to 128 characters.
fn long_name(address: &str, rig: u32, random: &mut Random) -> String {
    let tail = format!("-{rig}");
    let length = MAX_NAME - random.below(29) as usize;
    let mut name = format!("{address}.farm-");
    while name.len() + tail.len() < length {
        name.push(char::from(random.pick(b"abcdefghijkmnpqrstuvwxyz23456789-")));
    }
    name + &tail
}

/// Log-normal with a narrow lower side (0.4 TH/s is two deviations away) and a wide upper side, so
/// that most are hobby devices and a few are large machines.
fn hashrate(random: &mut Random) -> f64 {
    let z = random.normal();
    let width = if z < 0.0 { 0.55 } else { 1.6 };
    let raw = (MEDIAN_HS * (z * width).exp()).clamp(MIN_HS, MAX_HS);
    (raw / 1e6).round() * 1e6
}

fn useragent(hashrate_hs: f64, random: &mut Random) -> &'static str {
    if hashrate_hs < 3e12 {
        random.pick(&[
            "bitaxe/BM1370/v2.9.0",
            "bitaxe/BM1366/v2.4.2",
            "bitaxe/BM1368/v2.6.1",
            "NerdQAxe/BM1368/v1.0.29",
        ])
    } else if hashrate_hs < 50e12 {
        random.pick(&["cgminer/4.12.1", "NerdOCTAXE/BM1370/v1.0.34", "bosminer/0.9.0"])
    } else {
        random.pick(&["Antminer S19j Pro/1.0", "Antminer S21/1.2", "whatsminer/v1.1"])
    }
}
