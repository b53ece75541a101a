// SPDX-License-Identifier: GPL-2.0

//! The exit statuses.

use std::process::ExitCode;

macro_rules! exits {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// How a command ended, for scripts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Exit { $($name = $code),* }

        /// Each exit status and its meaning.
        pub const EXITS: &[(u8, &str)] = &[$(($code, $text)),*];
    };
}

// The guide has the same table: scripts/check-knobs.sh compares the two.
exits! {
    Done = 0, "done";
    Failed = 1, "another error, which the message names";
    Usage = 2, "wrong command line; nothing was done";
    NotLoaded = 3, "the module is not loaded";
    NoDevice = 4, "flush: there is no device to hint to";
    TimedOut = 5, "flush: not done within --timeout";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// The end of `--help`.
pub fn help() -> String {
    let lines: String = EXITS
        .iter()
        .map(|(code, text)| format!("\n  {code}  {text}"))
        .collect();
    format!("Exit status:{lines}")
}
