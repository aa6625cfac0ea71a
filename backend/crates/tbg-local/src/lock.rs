//! The lock that keeps two supervisors from using one folder at the same time.
//!
//! The lock belongs to the open file, so the kernel lets go of it however the process ends; a lock
//! file left behind by a crash means nothing.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// An exclusive hold on a folder, given up when dropped.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl DirLock {
    /// Creates `dir` if need be and locks it, without waiting.
    ///
    /// Fails when another process (or another part of this one) holds the lock.
    pub fn acquire(dir: &Path) -> anyhow::Result<DirLock> {
        fs::create_dir_all(dir)
            .with_context(|| format!("cannot create {}: choose another folder", dir.display()))?;
        let path = dir.join("lock");
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}: check its owner", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another tbg is using {}: stop it or choose another folder", dir.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}: use a local disk", path.display()))
            }
        }
    }
}

impl Drop for DirLock {
    /// Closing the file would not do: a child process that another thread is just starting holds a copy of
    /// it until it runs its own program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}
