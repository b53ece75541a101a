// SPDX-License-Identifier: GPL-2.0

//! Makes the guest's root file system: a newc archive.

use anyhow::{Context, Result, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where the module is in the guest.
pub const MODULE: &str = "/lib/modules/page_hinting.ko";
/// Where modules are in the guest.
const MODULES: &str = "lib/modules";
/// Where the selftests are in the guest.
pub const SELFTESTS: &str = "/selftests";

const INIT: &[u8] = include_bytes!("../guest/init");
const JOBS: [(&str, &[u8]); 2] = [
    ("agent", include_bytes!("../guest/agent")),
    ("shell", include_bytes!("../guest/shell")),
];
const DIRECTORIES: [&str; 13] = [
    "bin",
    "dev",
    "lab",
    "lib",
    "lib/modules",
    "proc",
    "sbin",
    "selftests",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
];

/// Puts an archive together.
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add(&mut self, entry: Builder, kind: ModeFileType, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let entry = entry.ino(self.inode).set_mode_file_type(kind);
        let size = content.len().try_into().context("larger than 4 GiB")?;
        let mut writer = entry.write(&mut self.bytes, size);
        std::io::Write::write_all(&mut writer, content)?;
        writer.finish()?;
        Ok(())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        let entry = Builder::new(name).mode(0o755).nlink(2);
        self.add(entry, ModeFileType::Directory, &[])
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let entry = Builder::new(name).mode(mode).nlink(1);
        self.add(entry, ModeFileType::Regular, content)
    }

    fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let read = || -> Result<_> {
            let mode = fs::metadata(from)?.permissions().mode() & 0o777;
            Ok((mode, fs::read(from)?))
        };
        let (mode, content) = read().with_context(|| from.display().to_string())?;
        self.file(name, mode, &content)
    }

    /// A directory; modules in it go where modules are.
    fn tree(&mut self, name: &str, from: &Path) -> Result<()> {
        let mut entries = fs::read_dir(from)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .with_context(|| from.display().to_string())?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let file_name = entry.file_name();
            let file_name = file_name.to_str().context("a file name is not UTF-8")?;
            let name = format!("{name}/{file_name}");
            if path.is_dir() {
                self.directory(&name)?;
                self.tree(&name, &path)?;
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                self.copy(&format!("{MODULES}/{file_name}"), &path)?;
            } else {
                self.copy(&name, &path)?;
            }
        }
        Ok(())
    }
}

/// What goes into a guest beside the lab's own scripts.
pub struct Content<'a> {
    /// A static busybox.
    pub busybox: &'a Path,
    /// The module, if there is one.
    pub module: Option<&'a Path>,
    /// The installed selftests, if there are any.
    pub selftests: Option<&'a Path>,
}

/// The archive, uncompressed.
pub fn build(content: &Content<'_>) -> Result<Vec<u8>> {
    let mut archive = Archive {
        bytes: Vec::new(),
        inode: 0,
    };
    for name in DIRECTORIES {
        archive.directory(name)?;
    }
    // The kernel opens it for init's own output.
    let console = Builder::new("dev/console")
        .mode(0o600)
        .nlink(1)
        .rdev_major(5)
        .rdev_minor(1);
    archive.add(console, ModeFileType::Char, &[])?;

    archive.file("init", 0o755, INIT)?;
    for (name, script) in JOBS {
        archive.file(&format!("lab/{name}"), 0o755, script)?;
    }
    let busybox =
        fs::read(content.busybox).with_context(|| content.busybox.display().to_string())?;
    ensure!(
        is_static(&busybox),
        "{} is not a static program; apt-get install busybox-static",
        content.busybox.display()
    );
    archive.file("bin/busybox", 0o755, &busybox)?;
    if let Some(module) = content.module {
        archive.copy(MODULE.trim_start_matches('/'), module)?;
    }
    if let Some(selftests) = content.selftests {
        archive.tree(SELFTESTS.trim_start_matches('/'), selftests)?;
    }
    Ok(trailer(archive.bytes)?)
}

/// Whether an ELF file for x86-64 asks for no interpreter.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(elf.get(at..at + len)?);
        Some(u64::from_le_bytes(bytes))
    };
    let interpreter = || -> Option<bool> {
        let table = number(0x20, 8)? as usize;
        let (size, count) = (number(0x36, 2)? as usize, number(0x38, 2)? as usize);
        for i in 0..count {
            if number(table + i * size, 4)? == u64::from(PT_INTERP) {
                return Some(true);
            }
        }
        Some(false)
    };
    elf.starts_with(b"\x7fELF\x02") && interpreter() == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::collections::BTreeMap;
    use std::io::Read;

    /// A static program: an ELF header without program headers.
    fn static_elf() -> Vec<u8> {
        let mut elf = vec![0; 0x40];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf
    }

    fn entries(mut bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut entries = BTreeMap::new();
        loop {
            let mut reader = Reader::new(bytes).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            let entry = reader.entry();
            entries.insert(entry.name().to_owned(), (entry.mode(), content));
            bytes = reader.finish().unwrap();
        }
    }

    #[test]
    fn everything_is_in_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let busybox = dir.path().join("busybox");
        fs::write(&busybox, static_elf()).unwrap();
        let module = dir.path().join("any.ko");
        fs::write(&module, "module").unwrap();
        let selftests = dir.path().join("tests");
        fs::create_dir_all(selftests.join("sub")).unwrap();
        let test = selftests.join("sub/load.sh");
        fs::write(&test, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&test, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(selftests.join("sim.ko"), "for tests").unwrap();

        let archive = build(&Content {
            busybox: &busybox,
            module: Some(&module),
            selftests: Some(&selftests),
        })
        .unwrap();
        let entries = entries(&archive);

        assert_eq!(entries["init"], (0o100755, INIT.to_vec()));
        assert_eq!(entries["bin/busybox"], (0o100755, static_elf()));
        assert_eq!(entries["lib/modules/page_hinting.ko"].1, b"module");
        assert_eq!(entries["selftests/sub"].0, 0o040755);
        assert_eq!(
            entries["selftests/sub/load.sh"],
            (0o100755, b"#!/bin/sh\n".to_vec())
        );
        assert_eq!(entries["lib/modules/sim.ko"].1, b"for tests");
        assert!(!entries.contains_key("selftests/sim.ko"));
        assert_eq!(entries["dev/console"].0, 0o020600);
        for name in entries.keys() {
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(entries.contains_key(parent), "{name} has no directory");
            }
        }
    }

    #[test]
    fn a_dynamic_busybox_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let busybox = dir.path().join("busybox");
        for (content, what) in [
            (fs::read("/proc/self/exe").unwrap(), "dynamic"),
            (b"#!/bin/sh\n".to_vec(), "script"),
        ] {
            fs::write(&busybox, content).unwrap();
            let error = build(&Content {
                busybox: &busybox,
                module: None,
                selftests: None,
            })
            .unwrap_err();
            assert!(
                error.to_string().contains("not a static"),
                "{what}: {error}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = build(&Content {
            busybox: Path::new("/nonexistent/busybox"),
            module: None,
            selftests: None,
        })
        .unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/busybox"));
    }
}
