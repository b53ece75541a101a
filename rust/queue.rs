// SPDX-License-Identifier: GPL-2.0

//! The reporting device and its queue, through the core.

use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::ffi;

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

    /// Has the thread woken when the unhinted blocks of an order from `min_order` up reach
    /// `pages`; [`None`] for never.
    pub(crate) fn set_watermark(watermark: Option<(u32, u64)>) {
        let (min_order, pages) = watermark.unwrap_or((kernel::bindings::NR_PAGE_ORDERS, 0));

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
pub(crate) struct Ack {
    /// How many; more than one if somebody who needed the memory took them back.
    pub(crate) requests: u64,
    /// Their size in pages.
    pub(crate) pages: u64,
    /// From submission to return, the longest of them, in nanoseconds.
    pub(crate) latency_ns: u64,
    /// Whether they were submitted since the module was loaded, and not before it was unloaded last.
    pub(crate) own: bool,
}

/// Returns what the host has acknowledged to the free lists.
pub(crate) fn reap() -> Option<Ack> {
    let mut ack = ffi::page_hinting_ack {
        nr_requests: 0,
        nr_pages: 0,
        latency_ns: 0,
        own: false,
    };

    // SAFETY: `ack` is valid for writes.
    unsafe { ffi::page_hinting_reap(&mut ack) }.then_some(Ack {
        requests: ack.nr_requests as u64,
        pages: ack.nr_pages as u64,
        latency_ns: ack.latency_ns,
        own: ack.own,
    })
}

/// Has the next acknowledgment wake the thread. False if there is something to [`reap`] already.
pub(crate) fn arm() -> bool {
    // SAFETY: No requirements but process context.
    unsafe { ffi::page_hinting_arm() }
}

/// The device and what it has.
pub(crate) struct State(ffi::page_hinting_device_state);

impl State {
    /// The state now.
    pub(crate) fn now() -> Self {
        let mut state = ffi::page_hinting_device_state {
            room: 0,
            capacity: 0,
            min_order: 0,
            in_flight: 0,
            oldest_ns: 0,
            cancelled: 0,
            held: false,
        };

        // SAFETY: `state` is valid for writes.
        unsafe { ffi::page_hinting_get_device_state(&mut state) };
        Self(state)
    }

    /// Whether there is a device.
    pub(crate) fn has_device(&self) -> bool {
        self.0.capacity != 0
    }

    /// Ranges that may be in flight together.
    pub(crate) fn capacity(&self) -> u32 {
        self.0.capacity
    }

    /// Ranges that may be submitted now.
    pub(crate) fn room(&self) -> u32 {
        self.0.room
    }

    /// Lowest order that the device takes.
    pub(crate) fn min_order(&self) -> u32 {
        self.0.min_order
    }

    /// Whether the host has something to acknowledge.
    pub(crate) fn in_flight(&self) -> bool {
        self.0.in_flight != 0
    }

    /// How long the host has had the oldest of it, in nanoseconds.
    pub(crate) fn oldest_ns(&self) -> u64 {
        self.0.oldest_ns
    }

    /// Whether somebody waits for what is out, so that nothing can be taken or submitted now.
    pub(crate) fn held(&self) -> bool {
        self.0.held
    }

    /// Requests that came back because the device was reset, since the module was loaded.
    pub(crate) fn cancelled(&self) -> u64 {
        self.0.cancelled
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
