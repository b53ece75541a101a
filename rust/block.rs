// SPDX-License-Identifier: GPL-2.0

//! Isolated blocks, as an owned value.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

use kernel::{
    error::to_result,
    prelude::*, //
};

use crate::{
    ffi,
    thread::InThread,
    zone::Zone, //
};

/// Blocks that are on no free list, because this value owns them.
///
/// They are handed to the host by [`Isolated::submit`], and are the core's from then on, or go
/// back to the free lists as they were when the value is dropped. There is no third way, so no
/// block can be lost, or returned twice.
///
/// # Invariants
///
/// The pointer is a request of the core in the isolated state, which nobody else uses.
pub(crate) struct Isolated {
    request: NonNull<ffi::page_hinting_request>,
    pages: u64,
}

impl Isolated {
    /// No blocks yet. [`None`] if as many requests as there are are in use.
    pub(crate) fn new(_: &InThread) -> Option<Self> {
        // SAFETY: The token says that this is the module's thread, as the core demands.
        let request = NonNull::new(unsafe { ffi::page_hinting_get_request() })?;

        // INVARIANT: The core has just made the request isolated, for this caller.
        Some(Self { request, pages: 0 })
    }

    /// Takes unhinted blocks of a zone's free area, the coldest first.
    ///
    /// Takes no more than `max_pages`, and no more than fit into `max_ranges` ranges of adjacent
    /// blocks, all that were taken before included. Returns the pages that were taken.
    pub(crate) fn take(&mut self, zone: Zone, order: u32, max_pages: u64, max_ranges: u32) -> u64 {
        // SAFETY: By the type invariant the request is isolated and ours; the zone is valid.
        let pages = unsafe {
            ffi::page_hinting_take(
                self.request.as_ptr(),
                zone.as_ptr(),
                order,
                usize::try_from(max_pages).unwrap_or(usize::MAX),
                max_ranges,
            )
        } as u64;

        self.pages = self.pages.saturating_add(pages);
        pages
    }

    /// The size of the blocks, in pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether there are no blocks.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Hands the blocks to the host, without waiting for it.
    ///
    /// On an error they are returned to the free lists: `ENODEV` if there is no device, `ENOSPC`
    /// if its queue is full, `EINVAL` if there are no blocks, `EAGAIN` if somebody waits for what is
    /// out, or an error of the device.
    pub(crate) fn submit(self) -> Result {
        if self.is_empty() {
            return Err(EINVAL);
        }

        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariant the request is isolated and ours.
        let ret = to_result(unsafe { ffi::page_hinting_submit(this.request.as_ptr()) });
        if ret.is_err() {
            // The request is still ours.
            drop(ManuallyDrop::into_inner(this));
        }
        ret
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the request is isolated and ours, and it is not used
        // after this.
        unsafe { ffi::page_hinting_drop(self.request.as_ptr()) };
    }
}
