//! Images on their way. Most are small, or made once and in order: the source pushes them as they are made. Memory is most
//! of the bytes, and can be read anywhere while the application stands still: the destination asks for it, in the order in
//! which the restore reads, so that the restore begins before it is here and neither side keeps much of it.
//!
//! | file | side | what it does |
//! |---|---|---|
//! | `meter` | source | counts, and tells how far it is |
//! | `push` | source | images as the dump makes them |
//! | `serve` | source | memory as it is asked for |
//! | `store` | destination | pushed images, until the restore reads them |
//! | `window` | destination | which pieces of memory are asked for, here, and read: the rules, without threads |
//! | `pull` | destination | memory over all data connections |
//! | `owed` | destination | memory that is asked for in any order |
//! | `arrived` | destination | all images, as the restore opens them |

mod arrived;
mod meter;
mod owed;
mod pull;
mod push;
mod serve;
mod store;
mod window;

pub(crate) use arrived::Arrived;
pub(crate) use meter::Meter;
pub(crate) use pull::{PullReader, Puller};
pub(crate) use push::Pusher;
pub(crate) use serve::MemoryServer;
pub(crate) use store::Store;

/// Images of one migration. A process tree has some for each process.
const MOST_IMAGES: usize = 200_000;

/// Whether a name from the other host is one of an image, and none that leads anywhere.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && name.bytes().all(allowed)
}
