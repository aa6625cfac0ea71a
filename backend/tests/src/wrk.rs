//! Load by wrk: every request is another user's.

use std::fmt::Write as _;
use std::path::Path;

use tokio::process::Command;

/// A script of wrk in which every request has the next value of a header. The requests are made before the clock
/// runs.
///
/// # Panics
/// Never: writing into a text does not fail.
#[must_use]
pub fn script(header: &str, values: impl Iterator<Item = String>) -> String {
    let mut text = "local values = {\n".to_owned();
    for value in values {
        writeln!(text, "\"{value}\",").unwrap();
    }
    write!(
        text,
        "}}\nlocal requests = {{}}\nlocal n = 0\ninit = function(args)\n  for i, value in ipairs(values) do\n    \
         requests[i] = wrk.format(\"GET\", nil, {{ [\"{header}\"] = value }})\n  end\nend\nrequest = function()\n  \
         n = n % #requests + 1\n  return requests[n]\nend\n"
    )
    .unwrap();
    text.push_str(
        "done = function(summary, latency, requests)\n  \
         io.write(string.format(\"p95 %.3f\\n\", latency:percentile(95) / 1000))\nend\n",
    );
    text
}

/// The same for tokens of signed-in users.
#[must_use]
pub fn script_of_tokens(tokens: &[String]) -> String {
    script("Authorization", tokens.iter().map(|token| format!("Bearer {token}")))
}

/// What wrk measured; times in milliseconds.
#[derive(Clone, Copy)]
pub struct Round {
    /// Requests a second.
    pub per_second: f64,
    /// Half of the answers took no longer.
    pub p50: f64,
    /// The slowest twentieth began here.
    pub p95: f64,
    /// The slowest hundredth.
    pub p99: f64,
    /// Answers that were not 200.
    pub refused: u64,
}

/// One round.
///
/// # Errors
/// When wrk is missing, or says something else than it should.
pub async fn run(connections: u32, seconds: u64, url: &str, script: &Path) -> anyhow::Result<Round> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency"]);
    let output = command.arg("-s").arg(script).arg(url).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let round = (|| {
        Some(Round {
            per_second: field("Requests/sec:")?.parse().ok()?,
            p50: milliseconds(field("50%")?)?,
            p95: field("p95")?.parse().ok()?,
            p99: milliseconds(field("99%")?)?,
            refused: field("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse().ok())?,
        })
    })();
    round.ok_or_else(|| anyhow::anyhow!("wrk said: {text}"))
}

fn milliseconds(text: &str) -> Option<f64> {
    let number = |unit: &str| text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
    number("us").map(|us| us / 1_000.0).or_else(|| number("ms")).or_else(|| number("s").map(|s| s * 1_000.0))
}
