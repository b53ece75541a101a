// SPDX-License-Identifier: GPL-2.0

//! The table of free areas, in debugfs.
//!
//! The file operations are the module's own. The kernel crate's debugfs sets no owner: rmmod would
//! succeed while the file is open, and closing it would then crash the guest.

use core::{
    ffi::c_void,
    ptr::{
        addr_of_mut,
        null,
        null_mut, //
    }, //
};

use kernel::{
    bindings,
    c_str,
    fmt,
    prelude::*,
    seq_file::SeqFile,
    seq_print, //
};

use crate::{
    ffi,
    pages_to_kb,
    zone::{
        Zone,
        MAX_PAGE_ORDER, //
    }, //
};

struct Operations(bindings::file_operations);

// SAFETY: It is never written. The owner and the functions are valid as long as the module is, and
// may be used from any thread.
unsafe impl Sync for Operations {}

static ZONES: Operations = Operations(bindings::file_operations {
    owner: addr_of_mut!(ffi::__this_module),
    open: Some(open_raw),
    read: Some(bindings::seq_read),
    llseek: Some(bindings::seq_lseek),
    release: Some(bindings::single_release),
    ..pin_init::zeroed()
});

/// The directory `page_hinting` of debugfs, with the file `zones`, which keeps the module while it
/// is open.
///
/// Dropping it removes the directory.
///
/// # Invariants
///
/// What `debugfs_create_dir()` has returned, a directory or an error, and not yet removed.
pub(crate) struct Files(*mut bindings::dentry);

// SAFETY: Any thread may remove it.
unsafe impl Send for Files {}

// SAFETY: It has no methods.
unsafe impl Sync for Files {}

impl Files {
    /// Creates the directory. Errors are ignored: the module works without debugfs.
    pub(crate) fn new() -> Self {
        // SAFETY: The names are C strings. `ZONES` is static, its owner keeps the module while the
        // file is open, and `Drop` removes the file before the module goes. Its functions need no
        // data. An error as parent creates nothing.
        unsafe {
            let dir =
                bindings::debugfs_create_dir(c_str!("page_hinting").as_char_ptr(), null_mut());

            bindings::debugfs_create_file_full(
                c_str!("zones").as_char_ptr(),
                0o400,
                dir,
                null_mut(),
                null(),
                &ZONES.0,
            );
            // INVARIANT: It is what `debugfs_create_dir()` has returned.
            Self(dir)
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: By the invariant; an error is ignored.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}

/// # Safety
///
/// For [`ZONES`] alone.
unsafe extern "C" fn open_raw(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: By the safety requirement it is a file that is being opened.
    unsafe { bindings::single_open(file, Some(show_raw), null_mut()) }
}

/// # Safety
///
/// For [`open_raw`] alone.
unsafe extern "C" fn show_raw(file: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: By the safety requirement, and `seq_file` holds its mutex meanwhile.
    seq_print!(unsafe { SeqFile::from_raw(file) }, "{}", Table);
    0
}

/// A line for each order of each zone: what is free, and what of it the host knows to be free.
struct Table;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# node zone order free_blocks unhinted_blocks offline_blocks freed_blocks bound_blocks offline_kb"
        )?;
        for zone in Zone::all() {
            let name = zone.name().to_str().unwrap_or("?");

            for order in 0..=MAX_PAGE_ORDER {
                let Some(area) = zone.area(order) else {
                    break;
                };

                writeln!(
                    f,
                    "{} {} {} {} {} {} {} {} {}",
                    zone.node(),
                    name,
                    order,
                    area.nr_free,
                    area.unhinted(),
                    area.nr_offline,
                    area.nr_freed(),
                    area.nr_bound,
                    pages_to_kb((area.nr_offline as u64) << order)
                )?;
            }
            writeln!(
                f,
                "# node {} zone {}: isolated_kb {}",
                zone.node(),
                name,
                pages_to_kb(zone.isolated())
            )?;
        }
        Ok(())
    }
}
