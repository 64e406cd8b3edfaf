//! The same container once more, on another host: its image and its settings, by whichever client made it.

#![forbid(unsafe_code)]
