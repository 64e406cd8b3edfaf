//! The images that critest pulls, made of Debian packages: what is in each, and the name it goes by in the registry.

use std::borrow::Cow;

use serde_json::{json, Value};

use crate::framework::image::recipe::{App, Base, PLAIN};
use crate::framework::recipe::Recipe;

/// The image of the pod sandboxes. No spec pulls or removes it.
pub(super) const SANDBOX: &str = "sandbox:1";

/// One image in the registry: an archive, and what its configuration says beyond the archive's.
pub(super) struct Image {
    /// Repository and tag, without the registry.
    pub(super) name: &'static str,
    pub(super) content: &'static App,
    pub(super) config: Value,
}

/// The commands whose messages critest knows are busybox's; the others it calls are those of Debian.
const BUSYBOX_COMMANDS: &str = "
for name in ash brctl grep hostname nc netstat ping top touch; do ln -sf busybox /usr/bin/$name; done
ln -sf busybox /usr/bin/sh
useradd -u 1000 default-user
groupadd -g 50000 group-defined-in-image
usermod -a -G group-defined-in-image default-user
";

/// A shell that keeps the identity its file gives it.
const SETUID_SHELL: &str = "install -m 4755 /bin/dash /usr/bin/setuid-sh";

static TOOLS: App = App {
    name: "critest-tools",
    packages: &["busybox", "procps"],
    after: BUSYBOX_COMMANDS,
    cmd: &["sh"],
    ..PLAIN
};

static NGINX: App = App {
    name: "critest-nginx",
    packages: &["busybox", "nginx"],
    after: "ln -sf busybox /usr/bin/grep",
    cmd: &["nginx", "-g", "daemon off;"],
    ..PLAIN
};

static SETUID: App = App {
    name: "critest-setuid",
    packages: &["dash"],
    after: SETUID_SHELL,
    cmd: &["/usr/bin/setuid-sh", "-p", "-c", "echo \"Effective uid: $(id -u)\""],
    ..PLAIN
};

/// For images that are only pulled and removed, or that do nothing.
static SMALL: App = App { name: "critest-small", base: &SMALL_BASE, cmd: &["sh"], ..PLAIN };

static SMALL_BASE: Base = Base {
    name: "image-critest-small",
    recipe: Recipe {
        suite: "trixie",
        variant: "extract",
        packages: Cow::Borrowed(&["busybox-static"]),
        options: &[
            "--extract-hook=cd \"$1\" && mkdir -p proc sys dev run tmp etc && ln -s usr/bin bin",
            "--extract-hook=for name in sh tail; do ln -s busybox \"$1/usr/bin/$name\"; done",
            "--extract-hook=printf 'root:x:0:0::/:/bin/sh\\nwww-data:x:33:33::/:/bin/sh\\n' >\"$1/etc/passwd\"",
            "--extract-hook=rm -rf \"$1/usr/share\"",
        ],
    },
};

/// nginx on another port, for a pod in the host's network.
const OTHER_PORT: &str =
    "sed -i s/80/12003/ /etc/nginx/sites-available/default && exec nginx -g 'daemon off;'";

/// A web server with this word in its log.
const HTTPD: &str = "echo httpd && exec nginx -g 'daemon off;'";

/// The repository of critest's own images.
macro_rules! own {
    ($name:literal) => {
        concat!("k8s-staging-cri-tools/", $name)
    };
}

/// All of them, but for one that critest wants by a digest: no other image can have it.
pub(super) fn images() -> Vec<Image> {
    let of = |name, content, config| Image { name, content, config };
    let shell = |script: &str| json!({ "Cmd": ["sh", "-c", script] });
    let user = |user: &str| json!({ "User": user });
    let labelled = |text: &str| json!({ "Labels": { "test": text } });
    // Not `sleep`: where a pod shares its process numbers, a spec looks for one that should have ended.
    let waiting = |text: &str| json!({ "Cmd": ["tail", "-f", "/dev/null"], "Labels": { "test": text } });
    vec![
        of(SANDBOX, &SMALL, waiting("sandbox")),
        of("pause:3.9", &SMALL, waiting("pause")),
        of("e2e-test-images/busybox:1.29-2", &TOOLS, json!({})),
        of("e2e-test-images/nginx:1.14-2", &NGINX, json!({})),
        of("e2e-test-images/httpd:2.4.39-4", &NGINX, shell(HTTPD)),
        of("e2e-test-images/nonewprivs:1.3", &SETUID, json!({})),
        of(own!("hostnet-nginx-amd64:latest"), &NGINX, shell(OTHER_PORT)),
        of(own!("test-image-predefined-group:latest"), &TOOLS, user("1000")),
        of(own!("test-image-user-uid:latest"), &SMALL, user("1002")),
        of(own!("test-image-user-username:latest"), &SMALL, user("www-data")),
        of(own!("test-image-user-uid-group:latest"), &SMALL, user("1003:1004")),
        of(own!("test-image-user-username-group:latest"), &SMALL, user("www-data:1004")),
        of(own!("test-image-latest:latest"), &SMALL, labelled("latest")),
        of(own!("test-image-tag:test"), &SMALL, labelled("test")),
        of(own!("test-image-tag:all"), &SMALL, labelled("all")),
        of(own!("test-image-1:latest"), &SMALL, labelled("1")),
        of(own!("test-image-2:latest"), &SMALL, labelled("2")),
        of(own!("test-image-3:latest"), &SMALL, labelled("3")),
        of(own!("test-image-tags:1"), &SMALL, labelled("tags")),
        of(own!("test-image-tags:2"), &SMALL, labelled("tags")),
        of(own!("test-image-tags:3"), &SMALL, labelled("tags")),
    ]
}
