// SPDX-License-Identifier: GPL-2.0

//! Every state is visited, and every fault is found.

use model::{Fault, Hinting};
use stateright::{Checker, HasDiscoveries, Model};

#[test]
fn all_that_must_hold_holds_in_every_state() {
    let checker = Hinting::default()
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();

    println!(
        "{} states, {} of them different, up to {} steps away",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
    // It is no model of nothing.
    assert!(checker.unique_state_count() > 100_000);
}

#[test]
fn every_fault_is_found() {
    for (fault, property) in [
        (Fault::UnloadReturns, "the host harms nothing"),
        (Fault::CancelBeforeReset, "the host harms nothing"),
        (Fault::CancelTags, "what is tagged was acknowledged"),
        (Fault::CancelledReturns, "what is out has one owner"),
        (Fault::Unchecked, "what is out has one owner"),
        (Fault::ReleaseInFlight, "the queue is that of one of them"),
        (Fault::ReleaseIgnoresClient, "the device has its user"),
        (Fault::NeverGivesBack, "the device goes back with the last"),
        (Fault::AttachDoesNotWait, "one at a time has the device"),
        (Fault::FailureStaysPaused, "the device has its user"),
        (Fault::RegisterIgnoresClient, "the device has its user"),
        (Fault::ReportTags, "what is tagged was acknowledged"),
        (Fault::UnregisterForgets, "the device has its user"),
        (Fault::AllocateKeepsTag, "what is tagged was acknowledged"),
        (Fault::ForgetKeepsEpoch, "what is tagged was acknowledged"),
        (Fault::DetachKeepsTags, "nothing is tagged without a client"),
    ] {
        let checker = Hinting { fault: Some(fault) }
            .checker()
            .finish_when(HasDiscoveries::AnyOf([property].into()))
            .spawn_bfs()
            .join();

        assert!(
            checker.discovery(property).is_some(),
            "{fault:?} does not break \"{property}\""
        );
    }
}
