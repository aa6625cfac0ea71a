use super::*;

fn sources(pairs: &[(&str, &str)]) -> Sources {
    Sources {
        environment: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        secrets_dir: None,
    }
}

fn origin<'a>(shown: &'a [Shown], name: &str) -> &'a Shown {
    shown.iter().find(|line| line.name == name).unwrap()
}

#[test]
fn a_secret_file_beats_the_environment_which_beats_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let file = write("tbg.toml", "ingest_batch_size = 7\ndb_max_connections = 9\nlog_filter = \"debug\"");
    let secret = write("url", "postgres://u:hunter2@h/d\n");
    let loaded = Loaded::from_sources(&sources(&[
        ("TBG_CONFIG", &file),
        ("TBG_DB_MAX_CONNECTIONS", "11"),
        ("TBG_DATABASE_URL", "postgres://weaker"),
        ("TBG_DATABASE_URL_FILE", &secret),
    ]))
    .unwrap();
    assert_eq!(loaded.settings.ingest_batch_size, 7);
    assert_eq!(loaded.settings.db_max_connections, 11);
    assert_eq!(loaded.settings.database_url.expose(), "postgres://u:hunter2@h/d");
    let shown = loaded.shown();
    assert_eq!(origin(&shown, "TBG_INGEST_BATCH_SIZE").origin, "file");
    assert_eq!(origin(&shown, "TBG_DB_MAX_CONNECTIONS").origin, "environment");
    assert_eq!(origin(&shown, "TBG_DATABASE_URL").origin, secret);
    assert!(!format!("{shown:?}{loaded:?}").contains("hunter2"));
}

#[test]
fn mounted_secrets_are_found_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("redis_url"), "redis://r\n").unwrap();
    let found = Sources { secrets_dir: Some(dir.path().to_owned()), ..Sources::default() };
    let loaded = Loaded::from_sources(&found).unwrap();
    assert_eq!(loaded.settings.redis_url.expose(), "redis://r");
}

#[test]
fn a_bad_value_is_named_but_not_quoted() {
    for (name, value) in [
        ("TBG_INGEST_BATCH_SIZE", "s3cret"),
        ("TBG_HTTP_LISTEN", "s3cret"),
        ("TBG_BTC_NETWORK", "s3cret"),
        ("TBG_DOCS_ENABLED", "s3cret"),
        ("TBG_ENVIRONMENT", "s3cret"),
        ("TBG_INGEST_BATCH_SIZE", "0"),
    ] {
        let error = Loaded::from_sources(&sources(&[(name, value)])).unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn unknown_keys_of_the_file_and_missing_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tbg.toml");
    std::fs::write(&path, "ingest_bach_size = 7").unwrap();
    let of = |path: &Path| Loaded::from_sources(&sources(&[("TBG_CONFIG", &path.display().to_string())]));
    assert!(of(&path).unwrap_err().to_string().contains("ingest_bach_size"));
    assert!(matches!(of(&dir.path().join("absent")), Err(ConfigError::File { .. })));
    let missing = sources(&[("TBG_REDIS_URL_FILE", "/nonexistent")]);
    assert!(Loaded::from_sources(&missing).unwrap_err().to_string().contains("TBG_REDIS_URL"));
}

#[test]
fn production_refuses_a_secret_in_the_environment_even_beside_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("database_url");
    std::fs::write(&path, "postgres://u@h/d").unwrap();
    let path = path.display().to_string();
    let exposed = ("TBG_DATABASE_URL", "postgres://u:hunter2@h/d");
    let production = ("TBG_ENVIRONMENT", "production");
    let alone = sources(&[production, exposed]);
    let named = sources(&[production, exposed, ("TBG_DATABASE_URL_FILE", &path)]);
    let mounted = Sources { secrets_dir: Some(dir.path().to_owned()), ..alone.clone() };
    for given in [alone, named, mounted] {
        let error = Loaded::from_sources(&given).unwrap_err().to_string();
        assert!(error.contains("TBG_DATABASE_URL_FILE") && !error.contains("hunter2"), "{error}");
    }

    // An empty variable holds no secret.
    let empty = ("TBG_DATABASE_URL", "");
    let mail = ("TBG_EMAIL_PROVIDER", "smtp");
    let safe = sources(&[production, mail, empty, ("TBG_DATABASE_URL_FILE", &path)]);
    let loaded = Loaded::from_sources(&safe).unwrap();
    assert_eq!(loaded.settings.database_url.expose(), "postgres://u@h/d");
}
