//! The acceptance examples of the contract; the numbers in names are theirs.

use proptest::prelude::*;

use super::*;

const T1: i64 = 1_771_920_000_000_000;

fn key() -> SaltKey {
    let mut bytes = [0; 32];
    (0..32).zip(&mut bytes).for_each(|(number, byte)| *byte = number);
    SaltKey::new(bytes)
}

fn week() -> IsoWeek {
    IsoWeek::parse("2026-W09").unwrap()
}

/// The five users of the examples.
pub(crate) fn users() -> [(i64, &'static str, f64, i64, u64); 5] {
    [
        (1, "bc1q9vza2e8x573nczrlzms0wvx3gsqjx7vavgkx0l", 4_231_847_293.0, 1_772_013_600_000_000, 47_832),
        (2, "15CRxFdyRpGZLW9w8HnHvVduizdL5jKNbs", 4_231_847_293.0, T1, 1_200),
        (3, "3LbZqMMHu371r5Fjve9qNhSQzuNi7EzqUR", 1000.5, 1_772_409_599_999_999, 10),
        (4, "bc1ppv609nr0vr25u07u95waq5lucwfm6tde4nydujnu8npg4q75mr5sxq8lt3", 4_231_847_293.0, T1, 1_300),
        (5, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", 4_231_847_293.0, T1, 1_300),
    ]
}

fn entry(number: usize) -> Entry {
    let (user, address, best_difficulty, best_time_us, total_shares) = users()[number - 1];
    let commitment = commitment(week(), &key().salt(week(), user), address);
    Entry { commitment, best_difficulty, best_time_us, total_shares }
}

/// The first so many users in leaf order.
fn entries(count: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (1..=count).map(entry).collect();
    entries.sort_by_key(|entry| entry.commitment);
    entries
}

fn levels(count: usize) -> Vec<Vec<Hash>> {
    tree(entries(count).iter().map(|entry| entry.leaf(week())).collect())
}

fn root(count: usize) -> Hash {
    levels(count).last().unwrap()[0]
}

#[test]
fn example_1_from_an_address_to_its_leaf() {
    assert_eq!(key().id(), "2da7861606ff2f9b");
    let salt = key().salt(week(), 1);
    assert_eq!(hex(&salt), "dcc70df819fa10ebd1f37fa26910efedca046db3181188064089118ca5611657");
    let one = entry(1);
    let commitment = "e1f2a1132a3adec5dd562e13ff389b1099e99d80042fe8727182b22376227c17";
    assert_eq!(hex(&one.commitment), commitment);
    assert_eq!(
        hex(&one.bytes(week())),
        format!("0107ea09{commitment}41ef879bafa0000000064ba3112a4800000000000000bad8")
    );
    assert_eq!(hex(&one.leaf(week())), "f168213f4a6c5444a3830acf36df0f9b5b300f1cbbcb42eb810e29d295f96130");
}

#[test]
fn example_2_leaves_stand_in_the_order_of_commitments() {
    let order: Vec<String> = entries(5).iter().map(|entry| hex(&entry.commitment[..4])).collect();
    assert_eq!(order, ["32e9fc7c", "58c66354", "91ac625e", "d70a2cf9", "e1f2a113"]);
}

#[test]
fn example_3_roots_and_the_seal() {
    for (count, expected) in [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "f168213f4a6c5444a3830acf36df0f9b5b300f1cbbcb42eb810e29d295f96130"),
        (2, "f2b05f5380bffb5f043bb5d3b31e3b97c4d3d0c53811f4fa684c4b20b93b2e73"),
        (3, "c583480a6c9d2de68bc52641945fa5648b2f4dba06b21a5c33835f2781d14a60"),
        (5, "6888e9a2d6e3828df49abbeb534df4b6210012b5661fe6b078865be6e8de4d59"),
    ] {
        assert_eq!(hex(&root(count)), expected, "{count}");
    }
    let first = seal(&NO_SEAL, week(), 5, &root(5));
    assert_eq!(hex(&first), "661ec9634bbcc5868972ccebe5b6e5489b89bf14c986cc9f59b6ae5d3b25d73e");
    let empty = seal(&first, week().next(), 0, &root(0));
    assert_eq!(hex(&empty), "eb76b01ec6e1939a4d834c7cbda6ffd4378daa9b1a1ba33543a01cf0c064a858", "example 6");
}

#[test]
fn example_4_proofs() {
    let levels = levels(5);
    let siblings = |leaf: usize| -> Vec<(Side, String)> {
        let places = sibling_places(leaf, 5);
        places.into_iter().map(|(level, index, side)| (side, hex(&levels[level][index]))).collect()
    };
    assert_eq!(
        siblings(3),
        [
            (Side::Left, "12ccc87c027b4e8d8584b660b158ccbecb9c8379fc88f1417f32843069e5d9a8".to_owned()),
            (Side::Left, "afe89215994eedd13a2511134cc703e614c4c8e5318eb6acfea21e23cd184081".to_owned()),
            (Side::Right, hex(&entry(1).leaf(week()))),
        ]
    );
    assert_eq!(
        siblings(4),
        [(Side::Left, "dc3fb8c265f21882ad5647f646c2db7e9464b1bf874dbcfcb46d17a173c74074".to_owned())]
    );
}

#[test]
fn example_5_the_order_of_the_draw() {
    let mut ranked: Vec<usize> = (1..=5).collect();
    ranked.sort_by(|a, b| by_rank(&entry(*a), &entry(*b)));
    assert_eq!(ranked, [5, 4, 2, 1, 3]);
    let percentiles: Vec<f64> = (1..=5).map(|rank| percentile(rank, 5)).collect();
    assert_eq!(percentiles, [80.0, 60.0, 40.0, 20.0, 0.0]);
    assert_eq!([1, 10, 11, 50, 51, 100, 101].map(xp_of), [100, 100, 50, 50, 25, 25, 10]);
}

#[test]
fn example_8_percentiles() {
    for (rank, count, expected) in [
        (1, 1, 0.0),
        (1, 3, 66.67),
        (1, 100, 99.0),
        (1, 1000, 99.9),
        (12, 200, 94.0),
        (31, 32, 3.13),
        (0, 5, 0.0),
    ] {
        assert!((percentile(rank, count) - expected).abs() < 1e-9, "({rank}, {count})");
    }
}

proptest! {
    #[test]
    fn every_leaf_proves_itself_and_no_other(count in 1_usize..70, other in any::<[u8; 32]>()) {
        let leaves: Vec<Hash> = (0..count).map(|number| sha256(&[&number.to_be_bytes()])).collect();
        let levels = tree(leaves.clone());
        let root = levels.last().unwrap()[0];
        for (index, leaf) in leaves.iter().enumerate() {
            let places = sibling_places(index, count);
            let siblings: Vec<(Side, Hash)> =
                places.into_iter().map(|(level, index, side)| (side, levels[level][index])).collect();
            prop_assert_eq!(root_of(*leaf, &siblings), root);
            prop_assert!(other == *leaf || root_of(other, &siblings) != root);
        }
    }
}

fn entrant(address: &str, best: f64, second: i64, shares: i64) -> Entrant {
    let best_time = DateTime::from_timestamp(1_771_920_000 + second, 0).unwrap();
    Entrant {
        user_id: 1,
        btc_address: address.into(),
        best_difficulty: best,
        best_time,
        total_shares: shares,
    }
}

#[test]
fn example_12_addresses_of_a_user_are_one_entrant_in_any_order() {
    let joined = |mut one: Entrant, other: Entrant| {
        one.join(other);
        one
    };
    for (one, other, expected) in [
        (entrant("x", 50.0, 1, 10), entrant("y", 80.0, 2, 5), entrant("y", 80.0, 2, 15)),
        (entrant("x", 80.0, 2, 10), entrant("y", 80.0, 1, 5), entrant("y", 80.0, 1, 15)),
        (entrant("y", 80.0, 1, 10), entrant("x", 80.0, 1, 5), entrant("x", 80.0, 1, 15)),
    ] {
        assert_eq!(joined(one.clone(), other.clone()), expected);
        assert_eq!(joined(other, one), expected);
    }
}
