//! What came of it: for people, for the build, for `results/crash.json`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::compare::{Difference, LEDGER};
use crate::killer::Recoveries;
use crate::pour::Poured;
use crate::stage::Kill;

/// What happened between the start of the program and its end.
pub struct Ordeal {
    /// Of each kind of kill.
    pub recoveries: Recoveries,
    /// What was written.
    pub poured: Poured,
    /// Entries in the streams, repeated ones included.
    pub entries: u64,
    /// Rows of the ledger.
    pub applied: i64,
    /// Whether everything was read and acknowledged in time.
    pub is_drained: bool,
    /// How the program ended after SIGTERM.
    pub exit_code: Option<i32>,
}

/// The whole result.
pub struct Report {
    /// Of the events and the kills.
    pub seed: u64,
    /// The crashed run.
    pub ordeal: Ordeal,
    /// Of the crashed database against the undisturbed one.
    pub differences: Vec<Difference>,
    /// Events that the rebuild folded.
    pub rebuilt: u64,
    /// Of the rollups after the rebuild against those before.
    pub rebuild: Vec<Difference>,
    /// How long everything took.
    pub took: Duration,
}

impl Report {
    /// Whether nothing differs and the program behaved.
    pub fn passed(&self) -> bool {
        self.ordeal.is_drained
            && self.ordeal.exit_code == Some(0)
            && self.differences.iter().chain(&self.rebuild).all(Difference::is_none)
    }

    /// Events without a row in the ledger, and rows of the ledger without an event.
    fn lost_and_extra(&self) -> (u64, u64) {
        let ledger = self.differences.iter().find(|difference| difference.table == LEDGER);
        ledger.map_or((0, 0), |ledger| (ledger.lost, ledger.extra))
    }

    fn duplicates(&self) -> i64 {
        i64::try_from(self.ordeal.entries).unwrap_or(i64::MAX) - self.ordeal.applied
    }

    /// To the terminal.
    pub fn print(&self) {
        let ordeal = &self.ordeal;
        println!("{:<12} {:>6} {:>18} {:>17}", "killed", "times", "longest recovery", "without progress");
        for (kill, recovery) in Kill::ALL.into_iter().zip(&ordeal.recoveries) {
            println!(
                "{:<12} {:>6} {:>16.2} s {:>17}",
                kill.name(),
                recovery.kills,
                recovery.longest.as_secs_f64(),
                recovery.without_progress
            );
        }
        let (lost, extra) = self.lost_and_extra();
        println!();
        println!("events written        {:>10}", ordeal.poured.events);
        println!("round trips repeated  {:>10}", ordeal.poured.repeated);
        println!("entries in streams    {:>10}", ordeal.entries);
        println!("events applied        {:>10}", ordeal.applied);
        println!("duplicates absorbed   {:>10}", self.duplicates());
        println!("events lost           {lost:>10}");
        println!("events counted twice  {extra:>10}");
        println!("drained               {:>10}", if ordeal.is_drained { "yes" } else { "NO" });
        println!(
            "exit code             {:>10}",
            ordeal.exit_code.map_or("none".to_owned(), |c| c.to_string())
        );
        print_differences("against the undisturbed run", &self.differences);
        print_differences("after a rebuild from the archive", &self.rebuild);
        println!();
        let verdict = if self.passed() { "PASSED: nothing differs" } else { "FAILED" };
        println!("{verdict} (seed {}, {:.0} s)", self.seed, self.took.as_secs_f64());
    }

    /// To `results/crash.json`.
    pub fn save(&self) -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join("crash.json");
        let text = serde_json::to_string_pretty(&self.json())? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn json(&self) -> Value {
        let ordeal = &self.ordeal;
        let (lost, extra) = self.lost_and_extra();
        let kills: Vec<Value> = Kill::ALL
            .into_iter()
            .zip(&ordeal.recoveries)
            .map(|(kill, recovery)| {
                json!({
                    "killed": kill.name(),
                    "times": recovery.kills,
                    "longest_recovery_seconds": recovery.longest.as_secs_f64(),
                    "restarts_without_progress": recovery.without_progress,
                })
            })
            .collect();
        json!({
            "passed": self.passed(),
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            // See stage.rs: production runs everysec.
            "redis_appendfsync": "always",
            "kills": kills,
            "events_written": ordeal.poured.events,
            "round_trips_repeated": ordeal.poured.repeated,
            "entries": ordeal.entries,
            "applied": ordeal.applied,
            "duplicates_absorbed": self.duplicates(),
            "lost": lost,
            "counted_twice": extra,
            "drained": ordeal.is_drained,
            "exit_code": ordeal.exit_code,
            "differences": self.differences.iter().map(difference_json).collect::<Vec<_>>(),
            "rebuilt_events": self.rebuilt,
            "rebuild_differences": self.rebuild.iter().map(difference_json).collect::<Vec<_>>(),
        })
    }
}

fn print_differences(title: &str, differences: &[Difference]) {
    println!();
    println!("{title:<34} {:>9} {:>7} {:>7} {:>8}", "rows", "lost", "extra", "unequal");
    for difference in differences {
        let Difference { table, rows, lost, extra, unequal, examples } = difference;
        println!("{table:<34} {rows:>9} {lost:>7} {extra:>7} {unequal:>8}");
        for example in examples {
            println!("    {example}");
        }
    }
}

fn difference_json(difference: &Difference) -> Value {
    json!({
        "table": difference.table,
        "rows": difference.rows,
        "lost": difference.lost,
        "extra": difference.extra,
        "unequal": difference.unequal,
        "examples": difference.examples,
    })
}
