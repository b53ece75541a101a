// SPDX-License-Identifier: GPL-2.0

//! The reporting device and its queue, through the core.

use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::{
    ffi,
    machine::Watermark, //
};

/// The module's hold of the core: while it lives, free pages are hinted from here.
///
/// Dropping it gives the device back to page reporting, as soon as the host has acknowledged what
/// it has; it does not wait for that. [`crate::thread::Thread`] owns it, and stops before.
pub(crate) struct Attachment(());

impl Attachment {
    /// Takes the device over from page reporting, now or when there is one.
    ///
    /// `EOPNOTSUPP` if this guest cannot be hinted, `EBUSY` if the host does not answer page
    /// reporting's last report within five seconds, `EINTR` on a fatal signal. The core has said
    /// why in the log.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The client is valid as long as the module is, and detached before that ends, by
        // the drop of the value returned here.
        to_result(unsafe { ffi::page_hinting_attach(ffi::ph_client()) })?;
        Ok(Self(()))
    }

    /// Tells the core when to wake the thread.
    pub(crate) fn set_watermark(watermark: Watermark) {
        let (min_order, pages) = match watermark {
            Watermark::Never => (kernel::bindings::NR_PAGE_ORDERS, 0),
            Watermark::Blocks { min_order, pages } => (min_order, pages),
        };

        // SAFETY: Any arguments are good, in any context.
        unsafe {
            ffi::page_hinting_set_watermark(min_order, usize::try_from(pages).unwrap_or(usize::MAX))
        };
    }

    /// Tells the core the order of the host's pages: no smaller block keeps its tag when a part of
    /// the page is used.
    pub(crate) fn set_granule(order: u32) {
        // SAFETY: Any order is good, in any context.
        unsafe { ffi::page_hinting_set_granule(order) };
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: The value exists, so the core is attached. Its owner has stopped the thread, or
        // has not started it.
        unsafe { ffi::page_hinting_detach() };
    }
}

/// Has the watermark wake the thread again. To be called before looking for work.
pub(crate) fn rearm() {
    // SAFETY: May be called in any context.
    unsafe { ffi::page_hinting_rearm() };
}

/// Requests that the host has acknowledged, and that were returned to the free lists.
pub(crate) use ffi::page_hinting_ack as Ack;

/// Returns what the host has acknowledged to the free lists.
pub(crate) fn reap() -> Option<Ack> {
    let mut ack = Ack::default();

    // SAFETY: `ack` is valid for writes.
    unsafe { ffi::page_hinting_reap(&mut ack) }.then_some(ack)
}

/// Has the next acknowledgment wake the thread. False if there is something to [`reap`] already.
pub(crate) fn arm() -> bool {
    // SAFETY: No requirements but process context.
    unsafe { ffi::page_hinting_arm() }
}

/// The device and what it has.
pub(crate) use ffi::page_hinting_device_state as State;

impl State {
    /// The state now.
    pub(crate) fn now() -> Self {
        let mut state = Self::default();

        // SAFETY: `state` is valid for writes.
        unsafe { ffi::page_hinting_get_device_state(&mut state) };
        state
    }

    /// Whether there is a device.
    pub(crate) fn has_device(&self) -> bool {
        self.capacity != 0
    }
}

/// Pages isolated or in flight, and the most there were at a time when the module had taken some.
pub(crate) fn isolated() -> (u64, u64) {
    let mut peak = 0;

    // SAFETY: `peak` is valid for writes.
    let now = unsafe { ffi::page_hinting_isolated(&mut peak) };
    (now as u64, peak as u64)
}

/// Pages that were tagged Offline, merged with pages that are not and lost the tag, since boot. May
/// wrap.
pub(crate) fn untagged() -> u64 {
    // SAFETY: No requirements.
    unsafe { ffi::page_hinting_nr_untagged() as u64 }
}

/// How often the host has asked for memory since boot. May wrap.
pub(crate) fn host_asks() -> u64 {
    // SAFETY: No requirements.
    unsafe { ffi::page_hinting_host_asks() as u64 }
}

/// Reports to the tracepoint that the host does not answer.
pub(crate) fn trace_stall(oldest_ns: u64) {
    // SAFETY: No requirements.
    unsafe { ffi::page_hinting_stalled(oldest_ns) };
}
