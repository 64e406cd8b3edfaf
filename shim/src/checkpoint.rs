//! containerd's request for a checkpoint, as the engine's.

use containerd_shim::api::CheckpointTaskRequest;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::shim::oci::CheckpointOptions;
use fastmig_engine::checkpoint::{After, Request, Tcp};

use crate::error::Error;
use crate::options::type_name;

/// What the engine is asked for. `standby` is the container's own wish.
pub(crate) fn request(request: &CheckpointTaskRequest, standby: bool) -> Result<Request, Error> {
    let options = options(request.options.as_ref())?;
    // containerd 1.7 knows that option of its own runtime alone, and sends a directory of its own besides.
    let path = if options.image_path.is_empty() { &request.path } else { &options.image_path };
    if path.is_empty() {
        return Err(invalid("no path for the image".into()));
    }
    let after = match (options.exit, standby) {
        (true, _) => After::Exit,
        (false, true) => After::Standby,
        (false, false) => After::Run,
    };
    let mut wanted = Request::new(path.into(), after);
    if options.open_tcp {
        wanted.tcp = Some(Tcp::Keep);
    }
    wanted.external_unix_sockets = options.external_unix_sockets;
    if !options.work_path.is_empty() {
        wanted.work_path = Some(options.work_path.into());
    }
    // `file_locks` is no wish that could be told from its absence; locks are always taken along. `terminal`,
    // `empty_namespaces` and `cgroups_mode` tell CRIU how to take a whole container, which stays here.
    Ok(wanted)
}

fn options(any: Option<&Any>) -> Result<CheckpointOptions, Error> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    match type_name(any) {
        "containerd.runc.v1.CheckpointOptions" => {
            CheckpointOptions::parse_from_bytes(&any.value).map_err(|e| invalid(e.to_string()))
        }
        other => Err(invalid(format!("unknown type {other:?}"))),
    }
}

fn invalid(reason: String) -> Error {
    Error::Invalid { what: "checkpoint options", reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim::protos::protobuf::MessageField;

    fn message(path: &str, options: Option<CheckpointOptions>) -> CheckpointTaskRequest {
        let options = options.map(|options| Any {
            type_url: "containerd.runc.v1.CheckpointOptions".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        });
        CheckpointTaskRequest {
            path: path.into(),
            options: MessageField::from_option(options),
            ..CheckpointTaskRequest::default()
        }
    }

    #[test]
    fn without_options_the_application_runs_on() {
        let wanted = request(&message("/images/1", None), false).unwrap();
        assert_eq!(wanted.path, std::path::Path::new("/images/1"));
        assert!(matches!(wanted.after, After::Run));
        assert!(wanted.tcp.is_none());
    }

    #[test]
    fn the_containers_wish_for_standby_gives_way_to_exit() {
        assert!(matches!(request(&message("/i", None), true).unwrap().after, After::Standby));
        let exit = CheckpointOptions { exit: true, ..CheckpointOptions::default() };
        assert!(matches!(request(&message("/i", Some(exit)), true).unwrap().after, After::Exit));
    }

    #[test]
    fn options_are_handed_on() {
        let options = CheckpointOptions {
            open_tcp: true,
            external_unix_sockets: true,
            image_path: "/elsewhere".into(),
            work_path: "/criu-log".into(),
            ..CheckpointOptions::default()
        };
        let wanted = request(&message("/of/containerd", Some(options)), false).unwrap();
        assert!(matches!(wanted.tcp, Some(Tcp::Keep)));
        assert!(wanted.external_unix_sockets);
        assert_eq!(wanted.path, std::path::Path::new("/elsewhere"));
        assert_eq!(wanted.work_path.as_deref(), Some(std::path::Path::new("/criu-log")));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(request(&message("", None), false), Err(Error::Invalid { .. })));
        let mut other = message("/i", Some(CheckpointOptions::default()));
        other.options.mut_or_insert_default().type_url = "example.Options".into();
        assert!(matches!(request(&other, false), Err(Error::Invalid { .. })));
    }
}
