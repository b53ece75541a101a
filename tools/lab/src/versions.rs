// SPDX-License-Identifier: GPL-2.0

//! What a result was obtained with.

use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The commit of the checkout that the lab is run in, "-dirty" if it was changed.
pub fn git() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// The running kernel's release.
pub fn host_kernel() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

/// What a module says of itself.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its modinfo fields that tell versions: `version`, `srcversion`, `vermagic`.
    #[serde(flatten)]
    pub info: BTreeMap<String, String>,
    /// Whether it brings KUnit tests.
    #[serde(skip)]
    pub has_kunit: bool,
}

impl Module {
    /// Reads it from the .ko.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Self {
        let info = bytes
            .split(|byte| *byte == 0)
            .filter_map(|string| std::str::from_utf8(string).ok()?.split_once('='))
            .filter(|(key, _)| ["version", "srcversion", "vermagic"].contains(key))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        let section = b".kunit_test_suites\0";
        Module {
            info,
            has_kunit: bytes.windows(section.len()).any(|bytes| bytes == section),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_is_found() {
        let module =
            Module::parse(b"\x7fELF\0\xffversion=0\0vermagic=7.3.4 SMP \0license=GPL\0.text\0");
        let info: Vec<_> = module.info.iter().collect();
        assert_eq!(info, [(&"vermagic".to_owned(), &"7.3.4 SMP".to_owned())]);
        assert!(!module.has_kunit);
        assert!(Module::parse(b"\0.kunit_test_suites\0").has_kunit);
    }
}
