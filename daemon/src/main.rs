//! `fastmigd`.

fn main() {}
