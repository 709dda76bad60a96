//! The unmodified Web OS in front of the built service: in a real browser, as recorded frames, and file by file.
//!
//! The page in clients/typescript/web-os-page behaves like the original, frame for frame. `point_N` and `points_N_M` in a name
//! are the points of docs/web-os.md.

#![allow(
    clippy::disallowed_methods,
    reason = "the tests start programs, and one is told by its environment to record"
)]

mod desk;
mod files;
mod golden;
mod pages;
mod terminals;

use mhnos_testing::Options;

const SERVICE: &str = env!("CARGO_BIN_EXE_mhnos-runtime");

#[track_caller]
fn options() -> Options {
    Options::new(SERVICE)
}
