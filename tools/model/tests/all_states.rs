// SPDX-License-Identifier: GPL-2.0

//! Every state is visited, and every fault is found.

use model::{Fault, Hinting};
use stateright::{Checker, Model};

#[test]
fn all_that_must_hold_holds_in_every_state() {
    let checker = Hinting::default().checker().spawn_bfs().join();

    println!(
        "{} states, {} of them different, up to {} steps away",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
    // It is no model of nothing.
    assert!(checker.unique_state_count() > 10_000);
}

#[test]
fn every_fault_is_found() {
    for (fault, property) in [
        (
            Fault::DetachReturns,
            "the host discards what was given to it alone",
        ),
        (
            Fault::CancelBeforeReset,
            "the host discards what was given to it alone",
        ),
        (Fault::CancelTags, "what is tagged was acknowledged"),
        (Fault::Unchecked, "what is tagged was acknowledged"),
        (Fault::ReleaseInFlight, "the queue is that of one of them"),
        (Fault::AttachDoesNotWait, "one at a time has the device"),
        (
            Fault::RegisterIgnoresClient,
            "the module has the device there is",
        ),
        (Fault::ReportTags, "what is tagged was acknowledged"),
        (Fault::UnregisterForgets, "who has the device has it"),
        (Fault::AllocateKeepsTag, "what is tagged was acknowledged"),
    ] {
        let checker = Hinting { fault: Some(fault) }.checker().spawn_bfs().join();

        assert!(
            checker.discovery(property).is_some(),
            "{fault:?} does not break \"{property}\""
        );
    }
}

#[test]
fn a_device_that_never_comes_back_is_missed() {
    let fault = Some(Fault::NeverGivesBack);
    let checker = Hinting { fault }.checker().spawn_bfs().join();

    assert!(
        checker
            .discovery("the device is given back with the last")
            .is_none()
    );
}
