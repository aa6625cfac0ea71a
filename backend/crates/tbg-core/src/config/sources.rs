//! From where settings are read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;

/// Where secrets are mounted by Docker and Kubernetes.
const RUN_SECRETS: &str = "/run/secrets";
/// How the names of our variables begin.
const PREFIX: &str = "TBG_";

/// From where settings are read; a value, so that tests need no global state.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Folder whose files are secrets, named like settings.
    pub secrets_dir: Option<PathBuf>,
}

impl Sources {
    /// The process's own environment and `/run/secrets`.
    ///
    /// # Errors
    /// When one of our variables is not a text.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_process() -> Result<Self, ConfigError> {
        let environment = texts(std::env::vars_os())?;
        Ok(Self { environment, secrets_dir: Some(PathBuf::from(RUN_SECRETS)) })
    }
}

/// The variables that are texts. Those of other programs need not be, and are not ours to judge.
fn texts(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut texts = BTreeMap::new();
    for (name, value) in variables {
        let shown = name.to_string_lossy().into_owned();
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            texts.insert(name, value);
        } else if shown.starts_with(PREFIX) {
            return Err(ConfigError::NotText(shown));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn variable(name: &[u8], value: &[u8]) -> (OsString, OsString) {
        (OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec()))
    }

    #[test]
    fn what_is_no_text_is_refused_if_it_is_ours_and_passed_over_if_not() {
        let ours = variable(b"TBG_LOG_FILTER", b"debug");
        let foreign = [variable(b"LESSCHARSET", b"caf\xe9"), variable(b"\xff", b"x")];

        let read = texts(foreign.into_iter().chain([ours.clone()])).unwrap();

        assert_eq!(read, BTreeMap::from([("TBG_LOG_FILTER".to_owned(), "debug".to_owned())]));
        for (broken, named) in [
            (variable(b"TBG_AUTH_DOMAIN", b"hunter2\xff"), "TBG_AUTH_DOMAIN"),
            (variable(b"TBG_\xff", b"hunter2"), "TBG_\u{fffd}"),
        ] {
            let error = texts([ours.clone(), broken]).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("hunter2"), "{error}");
        }
    }
}
