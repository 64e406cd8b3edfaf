//! Commands that run before and after a move: JSON on stdin, a time limit, and a decision on what a failure means.

#![forbid(unsafe_code)]
