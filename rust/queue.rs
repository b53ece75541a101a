// SPDX-License-Identifier: GPL-2.0

//! The kernel's hooks: when they wake the thread, and who hears of what happens to the guest.

use core::{
    ffi::c_void,
    ptr::{
        addr_of,
        addr_of_mut, //
    }, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc, //
};

use crate::{
    ffi,
    machine::{
        Wake,
        Watermark, //
    },
    policy::Knob,
    Shared, //
};

/// The module's hold of the kernel's hooks: while it lives, free pages are hinted from here.
///
/// Dropping it gives the device back to page reporting, as soon as the host has acknowledged what
/// it has; it does not wait for that. [`crate::thread::Thread`] owns it, and stops before.
pub(crate) struct Attachment(());

impl Attachment {
    /// Takes the device over from page reporting, now or when there is one.
    ///
    /// `EOPNOTSUPP` if this guest cannot be hinted, `EBUSY` if the host does not answer page
    /// reporting's last report within five seconds, `EINTR` on a fatal signal. The kernel has said
    /// why in the log.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The client is valid as long as the module is, and detached before that ends, by
        // the drop of the value returned here.
        to_result(unsafe { ffi::page_hinting_attach(addr_of_mut!(ffi::ph_client)) })?;
        Ok(Self(()))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: The value exists, so the client is attached. Its owner has stopped the thread, or
        // has not started it.
        unsafe { ffi::page_hinting_detach() };
    }
}

/// Tells the hooks when to wake the thread, and the order of the host's pages: no smaller block
/// keeps its tag when a part of the page is used.
pub(crate) fn set_watermark(watermark: Watermark) {
    let (min_order, pages) = match watermark.wake {
        Wake::Never => (kernel::bindings::NR_PAGE_ORDERS, 0),
        Wake::Blocks { min_order, pages } => (min_order, pages),
    };

    // SAFETY: Any arguments are good, in process context.
    unsafe {
        ffi::page_hinting_set_watermark(
            min_order,
            usize::try_from(pages).unwrap_or(usize::MAX),
            watermark.granule_order,
        )
    };
}

/// Has the watermark wake the thread again. To be called before looking for work.
pub(crate) fn rearm() {
    // SAFETY: May be called in any context.
    unsafe { ffi::ph_rearm() };
}

/// How often the host has asked for memory since the module was attached. May wrap.
pub(crate) fn host_asks() -> u64 {
    // SAFETY: The client is valid as long as the module is. Its writers are C, to which a volatile
    // read of an aligned word is `atomic_long_read()`.
    unsafe { addr_of!(ffi::ph_client.host_asks.counter).read_volatile() as u64 }
}

/// What the kernel tells of the guest as a whole.
///
/// Dropping it waits for calls under way.
pub(crate) struct Notifiers {
    /// What the calls use; dropped after the last of them.
    _shared: Arc<Shared>,
}

static OPS: ffi::ph_notifier_ops = ffi::ph_notifier_ops {
    out_of_memory: Some(out_of_memory_raw),
    restored: Some(restored_raw),
    forked: Some(forked_raw),
};

impl Notifiers {
    /// Begins to listen.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let data = Arc::as_ptr(&shared).cast_mut().cast::<c_void>();

        // SAFETY: `OPS` is static, and `data` is valid until the notifiers are unregistered, as the
        // value returned here holds a reference until then.
        to_result(unsafe { ffi::ph_notifiers_register(&OPS, data) })?;
        Ok(Self { _shared: shared })
    }
}

impl Drop for Notifiers {
    fn drop(&mut self) {
        // SAFETY: The value exists, so they were registered and not unregistered yet.
        unsafe { ffi::ph_notifiers_unregister() };
    }
}

/// # Safety
///
/// For [`OPS`] alone, with the `data` that [`Notifiers::new`] gave.
unsafe extern "C" fn out_of_memory_raw(data: *mut c_void) -> usize {
    // SAFETY: By the safety requirement `data` is a `Shared` that outlives the notifiers.
    let shared = unsafe { &*data.cast::<Shared>() };

    usize::try_from(shared.engine.out_of_memory()).unwrap_or(usize::MAX)
}

/// A hibernated guest runs again: the kernel that read the image has used pages that are tagged,
/// and the host may have been started anew.
///
/// # Safety
///
/// As [`out_of_memory_raw`].
unsafe extern "C" fn restored_raw(data: *mut c_void) {
    // SAFETY: As for `out_of_memory_raw`.
    unsafe { &*data.cast::<Shared>() }.rehint();
}

/// The guest is a copy of another.
///
/// # Safety
///
/// As [`out_of_memory_raw`].
unsafe extern "C" fn forked_raw(data: *mut c_void) {
    // SAFETY: As for `out_of_memory_raw`.
    let shared = unsafe { &*data.cast::<Shared>() };

    if shared.knobs().get(Knob::RehintOnVmfork) != 0 {
        shared.rehint();
    }
}
