//! Where a server's files lie and which user owns them.
//!
//! Two facts of life complicate "everything under one folder". PostgreSQL refuses to run as root, so
//! a root caller (a container, usually) hands its files to an unprivileged user, who must be able to
//! reach them. And the path of a Unix socket may be about a hundred bytes long at most, which deep
//! folders exceed. In both cases the files go to a folder named after a hash of the wanted one.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::{User, geteuid};
use tokio::process::Command;

use crate::tools::clean_command;

/// Linux allows 107 bytes, macOS 103; the smaller limit serves both.
const SOCKET_PATH_LIMIT: usize = 103;

/// Holds the path of PostgreSQL's data when it could not be kept in the folder itself.
pub(crate) const LOCATION_FILE: &str = "pgdata.location";

/// What this crate puts into a folder. A folder with nothing else in it is ours to open up.
const OWN_NAMES: [&str; 8] =
    ["lock", "run", "pgdata", "pgdata.new", LOCATION_FILE, "postgres.log", "redis", "redis.log"];

/// The unprivileged user a root caller runs PostgreSQL as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl ServerUser {
    /// The user to run PostgreSQL as: `None` means as the caller. Data that exist keep their owner.
    fn choose(data: &Path) -> anyhow::Result<Option<ServerUser>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        if let Ok(metadata) = fs::metadata(data)
            && metadata.uid() != 0
        {
            return Ok(Some(ServerUser { uid: metadata.uid(), gid: metadata.gid() }));
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).context("cannot read the user database")? {
                return Ok(Some(ServerUser { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        bail!("PostgreSQL does not run as root and there is no user for it: adduser postgres")
    }
}

/// PostgreSQL's files: the folder for its data and the user who owns them.
#[derive(Debug)]
pub(crate) struct Place {
    /// The caller's folder, where the log goes.
    pub(crate) dir: PathBuf,
    /// The data folder, which may not exist yet.
    pub(crate) data: PathBuf,
    /// Whom the servers run as, if not as the caller.
    pub(crate) user: Option<ServerUser>,
}

impl Place {
    /// Settles on a place for the data of `dir`: the same one as the last time, if there was one.
    pub(crate) async fn prepare(dir: &Path) -> anyhow::Result<Place> {
        let dir = absolute(dir)?;
        let location = dir.join(LOCATION_FILE);
        let moved = match fs::read_to_string(&location) {
            Ok(text) => Some(PathBuf::from(text.trim_end_matches('\n'))),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", location.display()));
            }
        };
        let user = ServerUser::choose(moved.as_deref().unwrap_or(&dir.join("pgdata")))?;

        if let Some(data) = moved {
            if let Some(home) = data.parent() {
                private_folder(home, user)?;
            }
            return Ok(Place { dir, data, user });
        }
        if let Some(user) = user
            && !reaches_into(&dir, user).await?
        {
            if dir.join("pgdata/PG_VERSION").exists() {
                bail!(
                    "PostgreSQL's user cannot reach the data in {}: let it pass through the folders above",
                    dir.display()
                );
            }
            let home = Path::new("/var/tmp").join(short_name(&dir));
            private_folder(&home, Some(user))?;
            let data = home.join("pgdata");
            fs::write(&location, format!("{}\n", data.display()))
                .with_context(|| format!("cannot write {}", location.display()))?;
            tracing::info!(
                data = %data.display(),
                "PostgreSQL's user cannot reach {}, its data are kept elsewhere",
                dir.display()
            );
            return Ok(Place { dir, data, user: Some(user) });
        }
        let data = dir.join("pgdata");
        Ok(Place { dir, data, user })
    }

    /// A private folder for the socket named `socket`, beside the data if its path is short enough.
    pub(crate) async fn socket_folder(&self, socket: &str) -> anyhow::Result<PathBuf> {
        let home = self.data.parent().unwrap_or(&self.dir);
        socket_folder(&home.join("run"), socket, self.user).await
    }
}

/// Creates `dir` if need be and returns its absolute path without symbolic links.
pub(crate) fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir)
        .and_then(|()| fs::canonicalize(dir))
        .with_context(|| format!("cannot create {}: choose another folder", dir.display()))
}

/// Creates `wanted`, or a short folder instead of it when the socket's path would get too long.
pub(crate) async fn socket_folder(
    wanted: &Path,
    socket: &str,
    user: Option<ServerUser>,
) -> anyhow::Result<PathBuf> {
    let name = short_name(wanted);
    let choices = [wanted.to_owned(), env::temp_dir().join(&name), Path::new("/tmp").join(&name)];
    for folder in choices {
        // libpq takes a comma for the end of a host name.
        let path = folder.join(socket);
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > SOCKET_PATH_LIMIT || bytes.contains(&b',') {
            continue;
        }
        private_folder(&folder, user)?;
        if may_use(&folder, user).await? {
            return Ok(folder);
        }
    }
    bail!("no folder for the socket {socket} of {}: choose a folder with a shorter path", wanted.display())
}

/// Makes `path` a folder that only its owner, `user` or else the caller, can look into.
///
/// Refuses a folder of somebody else's: in a shared place such as `/tmp` its name can be guessed.
pub(crate) fn private_folder(path: &Path, user: Option<ServerUser>) -> anyhow::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata =
                fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
            let owner = metadata.uid();
            let ours = owner == geteuid().as_raw() || user.is_some_and(|user| user.uid == owner);
            if !metadata.is_dir() || !ours {
                bail!("{} is not a folder of this user: remove it or run as its owner", path.display());
            }
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot create {}", path.display()));
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot make {} private", path.display()))?;
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid))
            .with_context(|| format!("cannot hand {} to PostgreSQL's user", path.display()))?;
    }
    Ok(())
}

/// Finds out by trying whether `user` can use a folder of its own inside `dir`.
///
/// A fresh temporary folder of root's is closed to everybody else. If `dir` holds nothing but this
/// crate's files it is opened to the user's group, just for passing through.
async fn reaches_into(dir: &Path, user: ServerUser) -> anyhow::Result<bool> {
    let probe = dir.join("run");
    private_folder(&probe, Some(user))?;
    if may_use(&probe, Some(user)).await? {
        return Ok(true);
    }
    let metadata = fs::metadata(dir)?;
    let mode = metadata.permissions().mode();
    if metadata.uid() == geteuid().as_raw() && holds_only_our_files(dir)? {
        chown(dir, None, Some(user.gid))
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o010)))
            .with_context(|| format!("cannot open {} to PostgreSQL's user", dir.display()))?;
        if may_use(&probe, Some(user)).await? {
            return Ok(true);
        }
        chown(dir, None, Some(metadata.gid()))
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("cannot close {} again", dir.display()))?;
    }
    // Only an empty folder is removed, so nothing can get lost here.
    let _ = fs::remove_dir(&probe);
    Ok(false)
}

fn holds_only_our_files(dir: &Path) -> anyhow::Result<bool> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        if !OWN_NAMES.iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks the kernel, as the user in question, whether `folder` can be written to.
async fn may_use(folder: &Path, user: Option<ServerUser>) -> anyhow::Result<bool> {
    if user.is_none() {
        return Ok(true);
    }
    let mut test: Command = clean_command("test".as_ref(), Path::new("/"), user);
    let status =
        test.arg("-w").arg(folder).status().await.context("cannot run `test`: apt-get install coreutils")?;
    Ok(status.success())
}

/// A short name that is always the same for the same path.
fn short_name(path: &Path) -> String {
    // FNV-1a, written out because the standard library's hasher may change between releases.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in path.as_os_str().as_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("tbg-{hash:016x}")
}

/// Encodes `text` for use in a URL, slashes included unless `keep_slashes`.
pub(crate) fn percent_encode(text: &[u8], keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_stable() {
        assert_eq!(short_name(Path::new("")), "tbg-cbf29ce484222325");
        assert_eq!(short_name(Path::new("a")), "tbg-af63dc4c8601ec8c");
    }

    #[test]
    fn paths_are_encoded_for_urls() {
        assert_eq!(percent_encode(b"/a b/%", false), "%2Fa%20b%2F%25");
        assert_eq!(percent_encode(b"/a b/%", true), "/a%20b/%25");
    }
}
