// SPDX-License-Identifier: GPL-2.0

//! The tracepoints, which `helpers/trace.h` defines.

use kernel::{
    bindings::{
        page,
        zone, //
    },
    ffi::{
        c_int,
        c_uint,
        c_ulong, //
    },
};

/// As `kernel::declare_trace!`, which finds only tracepoints in the kernel's own bindings.
macro_rules! declare_trace {
    ($(
        $(#[$attr:meta])*
        $vis:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?);
    )*) => {$(
        $(#[$attr])*
        #[inline(always)]
        $vis unsafe fn $name($($arg: $type),*) {
            #[cfg(CONFIG_TRACEPOINTS)]
            kernel::macros::paste! {
                // SAFETY: The key is that of a tracepoint, which C defines.
                let enabled = unsafe {
                    kernel::jump_label::static_branch_unlikely!(
                        $crate::ffi::[<__tracepoint_ $name>],
                        kernel::bindings::tracepoint,
                        key
                    )
                };

                if enabled {
                    // SAFETY: By the safety requirement.
                    unsafe { $crate::ffi::[<rust_do_trace_ $name>]($($arg),*) };
                }
            }
            #[cfg(not(CONFIG_TRACEPOINTS))]
            {
                $(let _ = $arg;)*
            }
        }
    )*};
}

declare_trace! {
    /// # Safety
    ///
    /// `zone` must be a zone, and `request` a struct page.
    pub(crate) unsafe fn page_hinting_take(
        zone: *mut zone, order: c_uint, request: *mut page, nr_pages: c_ulong,
    );

    /// # Safety
    ///
    /// `request` must be a struct page.
    pub(crate) unsafe fn page_hinting_submit(
        request: *mut page, nr_ranges: c_uint, nr_blocks: c_uint, err: c_int,
    );

    /// # Safety
    ///
    /// `request` must be a struct page.
    pub(crate) unsafe fn page_hinting_ack(request: *mut page, latency_ns: u64);

    /// # Safety
    ///
    /// `request` must be a struct page. Only its number is looked at.
    pub(crate) unsafe fn page_hinting_return(
        request: *mut page, nr_pages: c_ulong, offline: bool,
    );

    /// # Safety
    ///
    /// No requirements.
    unsafe fn page_hinting_stall(oldest_ns: u64);
}

/// The host has had a request for so long, and does not answer.
pub(crate) fn stall(oldest_ns: u64) {
    // SAFETY: No requirements.
    unsafe { page_hinting_stall(oldest_ns) };
}
