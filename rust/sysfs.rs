// SPDX-License-Identifier: GPL-2.0

//! Directories in sysfs whose files are a table in Rust.

use core::ptr::NonNull;

use kernel::{
    bindings::{
        self,
        kobj_attribute,
        kobject, //
    },
    c_str,
    error::to_result,
    ffi::c_char,
    prelude::*,
    sync::Arc, //
};

use crate::{
    ffi,
    policy::Knob,
    Shared, //
};

/// What a file is.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// A knob.
    Knob(Knob),
    /// A number that can be read.
    Number(fn(&Shared) -> u64),
    /// A word that can be read, with a number of seconds after it if there is one.
    Word(fn(&Shared) -> (&'static CStr, Option<u64>)),
    /// A write of 1 does this.
    Action(fn(&Shared) -> Result),
}

impl What {
    fn mode(self) -> u16 {
        match self {
            Self::Knob(_) => 0o644,
            Self::Number(_) | Self::Word(_) => 0o444,
            Self::Action(_) => 0o200,
        }
    }
}

/// A file with what its callbacks need. The attribute comes first: they get its address.
#[repr(C)]
struct Attribute {
    attr: kobj_attribute,
    what: What,
    shared: *const Shared,
}

/// A directory. Dropping it removes it, and waits for reads and writes under way.
pub(crate) struct Directory {
    kobject: NonNull<kobject>,
    /// What the files are made of; dropped after they were removed.
    _attributes: KVec<Attribute>,
    _shared: Arc<Shared>,
}

// SAFETY: Kobjects and attributes belong to no task, and are only read once they are there.
unsafe impl Send for Directory {}
// SAFETY: As above.
unsafe impl Sync for Directory {}

impl Directory {
    /// Creates a directory below `parent`.
    ///
    /// # Safety
    ///
    /// `parent` must be a kobject that lives as long as the value returned here.
    pub(crate) unsafe fn new(
        name: &'static CStr,
        parent: *mut kobject,
        files: &[(&'static CStr, What)],
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let mut attributes = KVec::with_capacity(files.len(), GFP_KERNEL)?;

        for (_, what) in files {
            let attribute = Attribute {
                attr: kobj_attribute::default(),
                what: *what,
                shared: Arc::as_ptr(&shared),
            };
            attributes.push(attribute, GFP_KERNEL)?;
        }
        for ((name, what), attribute) in files.iter().zip(attributes.iter_mut()) {
            // SAFETY: The attribute is valid for writes, and the name is static.
            unsafe {
                ffi::ph_attr_init(
                    &mut attribute.attr,
                    name.as_char_ptr(),
                    what.mode(),
                    Some(show),
                    Some(store),
                )
            };
        }
        // SAFETY: The name is static, and `parent` is valid by the safety requirement.
        let kobject = unsafe { bindings::kobject_create_and_add(name.as_char_ptr(), parent) };
        let directory = Self {
            kobject: NonNull::new(kobject).ok_or(ENOMEM)?,
            _attributes: attributes,
            _shared: shared,
        };

        for attribute in directory._attributes.iter() {
            // SAFETY: The kobject is valid. An `Attribute` begins with a `struct attribute`, and
            // stays where it is until the kobject was removed: the vector does not change any more.
            to_result(unsafe {
                bindings::sysfs_create_file_ns(
                    directory.kobject(),
                    core::ptr::from_ref(attribute).cast(),
                    core::ptr::null(),
                )
            })?;
        }
        Ok(directory)
    }

    /// Its kobject, which lives as long as the directory.
    pub(crate) fn kobject(&self) -> *mut kobject {
        self.kobject.as_ptr()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Not left to the last reference: the files must be gone when the module is.
        // SAFETY: The kobject was created and not removed yet.
        unsafe { bindings::kobject_del(self.kobject()) };
        // SAFETY: This is the reference that was got when it was created.
        unsafe { bindings::kobject_put(self.kobject()) };
    }
}

/// Wakes those who poll a file.
///
/// # Safety
///
/// `kobject` must be a directory that is there.
pub(crate) unsafe fn notify(kobject: *mut kobject, file: &'static CStr) {
    // SAFETY: By the safety requirement, in process context.
    unsafe { bindings::sysfs_notify(kobject, core::ptr::null(), file.as_char_ptr()) };
}

/// # Safety
///
/// For the attributes of a [`Directory`] alone, with a page to write to.
unsafe extern "C" fn show(_: *mut kobject, attr: *mut kobj_attribute, buf: *mut c_char) -> isize {
    // SAFETY: The attribute is the first field of an `Attribute`, which outlives the call.
    let attribute = unsafe { &*attr.cast::<Attribute>() };
    // SAFETY: The directory holds a reference.
    let shared = unsafe { &*attribute.shared };

    let number = match attribute.what {
        What::Knob(knob) => shared.knobs().get(knob),
        What::Number(read) => read(shared),
        What::Word(read) => {
            let (word, seconds) = read(shared);
            let format = match seconds {
                Some(_) => c_str!("%s %llu\n"),
                None => c_str!("%s\n"),
            };

            // SAFETY: `buf` is sysfs's page, and the arguments are what the format wants, with one
            // more than that in the second.
            return unsafe {
                bindings::sysfs_emit(
                    buf,
                    format.as_char_ptr(),
                    word.as_char_ptr(),
                    seconds.unwrap_or(0),
                )
            } as isize;
        }
        // It cannot be read.
        What::Action(_) => 0,
    };
    // SAFETY: As above.
    (unsafe { bindings::sysfs_emit(buf, c_str!("%llu\n").as_char_ptr(), number) }) as isize
}

/// # Safety
///
/// For the attributes of a [`Directory`] alone, with a string.
unsafe extern "C" fn store(
    _: *mut kobject,
    attr: *mut kobj_attribute,
    buf: *const c_char,
    count: usize,
) -> isize {
    // SAFETY: As for `show`.
    let attribute = unsafe { &*attr.cast::<Attribute>() };
    // SAFETY: As for `show`.
    let shared = unsafe { &*attribute.shared };
    // SAFETY: By the safety requirement.
    let result = unsafe { number(buf) }.and_then(|value| match attribute.what {
        What::Knob(knob) => shared.set(knob, value),
        What::Action(act) if value == 1 => act(shared),
        _ => Err(EINVAL),
    });

    match result {
        // CAST: A write is of a page at most.
        Ok(()) => count as isize,
        Err(error) => error.to_errno() as isize,
    }
}

/// A decimal number. Whatever is wrong with a value, the ABI promises `EINVAL`.
///
/// # Safety
///
/// `buf` must be a string.
unsafe fn number(buf: *const c_char) -> Result<u64> {
    let mut value = 0;

    // SAFETY: By the safety requirement there is a first character, the terminator at least.
    if unsafe { *buf } == b'+' as c_char {
        return Err(EINVAL);
    }
    // SAFETY: By the safety requirement, and `value` is valid for writes.
    to_result(unsafe { bindings::kstrtoull(buf, 10, &mut value) }).map_err(|_| EINVAL)?;
    Ok(value)
}
