//! What went wrong, with its remedy.

use std::io;
use std::time::Duration;

/// Why a container could not be described, its image not be moved, or the container not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client that can make it again knows the container.
    #[error("no client on this host knows container {id} of namespace {namespace}: it was made without docker, podman, nerdctl and containerd; make one in standby on the destination yourself")]
    NoClient {
        /// Its namespace.
        namespace: String,
        /// Its id.
        id: String,
    },
    /// The container belongs to a pod.
    #[error("container {id} belongs to a pod, which only its kubelet can make: start a pod with the annotation fastmig.dev/start=standby on the destination, and migrate into its container")]
    Pod {
        /// Its id.
        id: String,
    },
    /// A setting that cannot be taken over.
    #[error("the container cannot be made again with {setting}: {remedy}")]
    Unsupported {
        /// The setting, as its client calls it.
        setting: String,
        /// What to do.
        remedy: &'static str,
    },
    /// What a client says of a container makes no sense to us.
    #[error("{client} says something unexpected about {what}: {message}; this version of {client} may not be supported")]
    Answer {
        /// The client.
        client: &'static str,
        /// What it was asked about.
        what: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// A recipe that no honest peer writes.
    #[error("the recipe is refused: {what} is {value:?}: {why}")]
    BadRecipe {
        /// The field.
        what: &'static str,
        /// Its value, shortened.
        value: String,
        /// The rule.
        why: &'static str,
    },
    /// The recipe is of another version, or damaged.
    #[error("the recipe cannot be read: {message}; both hosts need the same version of FastMig")]
    Unreadable {
        /// What is wrong.
        message: String,
    },
    /// This host's settings do not allow what the container needs.
    #[error("this host does not allow the container: {}", reasons.join("; "))]
    NotAllowed {
        /// All reasons, each with the setting that would allow it.
        reasons: Vec<String>,
    },
    /// This host lacks what the container needs.
    #[error("the container cannot be made here: {what}; {remedy}")]
    Missing {
        /// What is missing, or in the way.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Another image has its name here.
    #[error("image {name} has other content on this host ({here}) than on the source ({there}): give the one here another name, or remove it")]
    OtherImage {
        /// The name.
        name: String,
        /// The digest here.
        here: String,
        /// The digest at the source.
        there: String,
    },
    /// An archive that is none, or holds more than the image.
    #[error("the image's archive is refused: {why}")]
    BadArchive {
        /// Why.
        why: String,
    },
    /// The container came out otherwise than described.
    #[error("{client} made the container otherwise than described, so it was removed: {differences}; make it yourself in standby, and migrate into it")]
    Differs {
        /// The client.
        client: &'static str,
        /// Where, and how.
        differences: String,
    },
    /// The container did not come up in standby.
    #[error("container {id} did not come up in standby within {limit:?} (it is {state}), so it was removed: is its runtime FastMig?")]
    NoStandby {
        /// Its id.
        id: String,
        /// The time it had.
        limit: Duration,
        /// What it was instead.
        state: String,
    },
    /// A program failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// Its command line, shortened.
        command: String,
        /// Its own words.
        message: String,
    },
    /// A program is not there.
    #[error("`{program}` cannot be started: {source}; is it installed in one of {path}?")]
    Start {
        /// The program.
        program: &'static str,
        /// Where it was looked for.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program did not end in time.
    #[error("`{command}` did not end within {limit:?} and was killed: is its daemon alive?")]
    TimedOut {
        /// Its command line, shortened.
        command: String,
        /// The time it had.
        limit: Duration,
    },
    /// The image could not be passed on.
    #[error("the image cannot be passed on: {source}")]
    Stream {
        /// What the system said.
        source: io::Error,
    },
    /// FastMig's own state could not be read.
    #[error(transparent)]
    Engine(#[from] fastmig_engine::Error),
}
