//! The contract as its users see it: bad input, good input, output, files.

mod bad_input;
mod binary;
mod documentation;
mod files;
mod good_input;
mod messages;
mod output;
