//! What runc does, FastMig does: one case for each of runc's commands, and for each feature of the specification that
//! an init above the command could disturb.

use super::pair::{host, Question};
use crate::framework::{Case, Ctx, Generation, Outcome};

/// A table of questions, each asked on both generations.
macro_rules! same {
    ($($name:literal : $edit:expr, $script:expr;)*) => {
        &[$(
            Case {
                name: concat!("as runc: ", $name, " (trixie)"),
                run: |ctx| ask(ctx, Generation::Trixie, Question { edit: $edit, script: $script }),
            },
            Case {
                name: concat!("as runc: ", $name, " (forky)"),
                run: |ctx| ask(ctx, Generation::Forky, Question { edit: $edit, script: $script }),
            },
        )*]
    };
}

fn ask(ctx: &Ctx, generation: Generation, question: Question) -> Outcome {
    host(ctx, generation).and_then(|host| question.same_answers(&host)).into()
}

const SLEEP: &str = r#".process.args = ["sleep", "600"]"#;

pub(super) const CASES: &[Case] = same! {
    "create, start, state, kill, delete": SLEEP, r#"
        s() { $R state c | jq -cS 'del(.pid, .created)'; }
        $R create c </dev/null >/oci/out/c 2>&1; echo $?; s
        $R start c; echo $?; s
        $R delete c; echo $?
        $R kill c KILL; echo $?
        for i in $(seq 100); do s | grep -q stopped && break; sleep 0.05; done; s
        $R start c; echo $?; $R kill c; echo $?; $R exec c true; echo $?
        $R delete c; echo $?; $R state c; echo $?; ls /oci/state"#;
    "what is not there": SLEEP, r#"
        for c in state start pause resume ps kill delete 'update --memory 9000000' 'events --stats'; do
            echo $c; $R $c nobody; echo $?
        done 2>&1 | sed 's/.*msg=//'
        $R exec nobody true 2>&1 | sed 's/.*msg=//'
        $R delete --force nobody; echo $?"#;
    "ids": SLEEP, r#"
        for id in a/b .. 'a b' '' x.y_z-1+2; do $R create "$id" </dev/null >/dev/null 2>&1; echo $?; done
        $R create x.y_z-1+2 </dev/null >/dev/null 2>&1; echo $?
        $R list -q"#;
    "a wrong bundle": SLEEP, r#"
        $R create -b /nonexistent c </dev/null >/dev/null 2>&1; echo $?
        echo '{' > config.json; $R create c </dev/null >/dev/null 2>&1; echo $?
        echo '{"ociVersion": "1.0.0"}' > config.json; $R create c </dev/null >/dev/null 2>&1; echo $?
        rm config.json; $R create c </dev/null >/dev/null 2>&1; echo $?; $R run c </dev/null >/dev/null 2>&1; echo $?
        $R list -q; ls -A"#;
    "the bundle stays as it was": SLEEP, r#"
        sha256sum config.json; ls -A; $R create c </dev/null >/dev/null 2>&1; $R start c
        sha256sum config.json; ls -A; $R delete -f c; sha256sum config.json; ls -A"#;
    "run and its exit code": r#".process.args = ["sh", "-c", "echo out; echo err >&2; cat; exit 7"]"#, r#"
        echo in | $R run c; echo $?; $R state c 2>/dev/null; echo $?
        echo in | $R run --pid-file /oci/out/pid c; echo $?; test -s /oci/out/pid; echo $?; $R list -q"#;
    "run the same again and again": r#".process.args = ["true"]"#, r#"
        for i in 1 2 3 4 5; do $R run c </dev/null; echo $?; done"#;
    "run until a signal": r#".process.args = ["sh", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"]"#, r#"
        $R run c </dev/null >/oci/out/o & pid=$!
        for i in $(seq 100); do grep -q ready /oci/out/o && break; sleep 0.05; done
        kill -TERM $pid; wait $pid; echo $?; cat /oci/out/o; $R list -q"#;
    "run detached": SLEEP, r#"
        $R run -d --pid-file /oci/out/pid c </dev/null >/dev/null 2>&1; echo $?
        test $($R state c | jq .pid) = $(cat /oci/out/pid); echo $?; $R state c | jq -r .status"#;
    "a command that is not there": r#".process.args = ["nothing-of-this-name"]"#, r#"
        $R create c </dev/null 2>&1 >/dev/null | grep -o 'executable file not found in $PATH'; $R list -q
        $R run c </dev/null >/oci/out/o 2>&1; echo $?; grep -o 'executable file not found in $PATH' /oci/out/o | head -1; $R list -q"#;
    "a command that may not be executed": r#".process.args = ["/etc"]"#, r#"
        $R create c </dev/null >/dev/null 2>&1; echo $?; $R run c </dev/null >/dev/null 2>&1; echo $?; $R list -q"#;
    "signals by name and number": r#".process.args = ["sh", "-c", "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done"]"#, r#"
        $R run -d c </dev/null >/oci/out/o 2>&1
        w() { for i in $(seq 100); do grep -q "$1" /oci/out/o && break; sleep 0.05; done; }
        w ready; $R kill c USR1; w usr1; $R kill c SIGHUP; w hup; $R kill c NOSUCH; echo $?; $R kill c 999; echo $?; $R kill c 15; w term
        for i in $(seq 100); do $R state c | grep -q stopped && break; sleep 0.05; done; cat /oci/out/o; $R kill c KILL; echo $?"#;
    "exec": SLEEP, r#"
        $R run -d c </dev/null >/dev/null 2>&1
        echo in | $R exec c sh -c 'echo out; echo err >&2; cat; exit 5'; echo $?
        $R exec --cwd /tmp -e A=1 -u 1:2 c sh -c 'pwd; echo $A; id -u; id -g'; echo $?
        $R exec c nothing-of-this-name >/dev/null 2>&1; echo $?
        $R exec c sh -c 'kill -9 $$'; echo $?
        echo '{"args": ["sh", "-c", "echo $X; pwd"], "cwd": "/etc", "env": ["PATH=/bin", "X=y"], "user": {"uid": 0, "gid": 0}}' > /oci/out/p
        $R exec -p /oci/out/p c; echo $?
        $R exec -d --pid-file /oci/out/pid c sleep 100 </dev/null; echo $?
        become() { tr '\0' ' ' < /proc/$(cat /oci/out/pid)/cmdline; }
        # runc is back before its init has become the command.
        for i in $(seq 100); do become | grep -q '^runc init' || break; sleep 0.02; done; become"#;
    "exec with a terminal": SLEEP, r#"
        $R run -d c </dev/null >/dev/null 2>&1
        # At the end of its input script says so to the terminal, which may echo it.
        mkfifo /oci/out/silent
        script -qec "$R exec -t c sh -c 'tty; stty size >/dev/null && echo tty; exit 4'" /dev/null 0<>/oci/out/silent; echo $?"#;
    "run with a terminal": r#".process.terminal = true | .process.args = ["sh", "-c", "tty; test -t 1 && echo tty; exit 6"]"#, r#"
        mkfifo /oci/out/silent
        script -qec "$R run c" /dev/null 0<>/oci/out/silent; echo $?; $R create c </dev/null; echo $?"#;
    "ps": SLEEP, r#"
        $R run -d c </dev/null >/dev/null 2>&1; $R ps c | head -1; $R ps c | grep -c '[0-9] sleep 600$'
        $R ps -f json c | jq -r 'type'; $R ps c -o pid | head -1; $R ps -f nonsense c; echo $?"#;
    "pause and resume": r#".process.args = ["sh", "-c", "while :; do echo x; sleep 0.05; done"]"#, r#"
        $R run -d c </dev/null >/oci/out/o 2>&1
        $R pause c; echo $?; $R state c | jq -r .status; $R list -f json | jq -r '.[0].status'
        sleep 0.2; a=$(wc -c < /oci/out/o); sleep 0.3; b=$(wc -c < /oci/out/o); test $a = $b; echo stands $?
        $R pause c; echo $?; $R delete c; echo $?
        $R resume c; echo $?; $R state c | jq -r .status; sleep 0.3; test $(wc -c < /oci/out/o) -gt $b; echo goes on $?
        $R resume c; echo $?
        $R pause c; $R kill c KILL; $R resume c; for i in $(seq 100); do $R state c | grep -q stopped && break; sleep 0.05; done; $R state c | jq -r .status"#;
    "a paused container is deleted by force": SLEEP, r#"
        $R run -d c </dev/null >/dev/null 2>&1; $R pause c; $R delete --force c; echo $?; $R list -q; find /sys/fs/cgroup/freezer -name 'c' | head"#;
    "update and events": SLEEP, r#"
        $R run -d c </dev/null >/dev/null 2>&1
        $R update --memory 33554432 --pids-limit 55 c; echo $?; $R events --stats c | jq -c '[.type, .id, .data.memory.usage.limit, .data.pids.limit]'
        echo '{"memory": {"limit": 67108864}}' | $R update -r - c; echo $?; $R events --stats c | jq -c '.data.memory.usage.limit'
        $R events --stats c | jq -cS '.data | keys'"#;
    "list": SLEEP, r#"
        $R list; $R list -f json; $R list -q; $R run -d c </dev/null >/dev/null 2>&1
        $R list | sed -E 's/ [0-9]+ +/ PID /; s/20[0-9-]+T[0-9:.]+Z/TIME/; s/ +/ /g'; $R list -f json | jq -cS '.[0] | del(.pid, .created)'; $R list -q; $R list -f nonsense; echo $?"#;
    "spec, features, help": ".", r#"
        mkdir -p /oci/out/s; cd /oci/out/s; $R spec; echo $?; sha256sum config.json; $R spec; echo $?; $R spec --rootless -b /nonexistent; echo $?
        $R features | jq -S . | sha256sum; $R checkpoint --help >/dev/null; echo $?; $R --version | grep -c ^spec:"#;
    "errors in the caller's log": SLEEP, r#"
        l() { jq -r '.level, (.time | type), (.msg | test("not"))' /oci/out/log; rm -f /oci/out/log; }
        $R --log /oci/out/log --log-format json start nobody 2>/dev/null; echo $?; l
        $R --log /oci/out/log --log-format json delete nobody 2>/dev/null; echo $?; l
        jq '.process.args = ["nothing-of-this-name"]' config.json > n; mv n config.json
        $R --log /oci/out/log --log-format json create c </dev/null >/dev/null 2>&1; echo $?; l
        $R --log /oci/out/log create c </dev/null >/dev/null 2>&1; grep -c level=error /oci/out/log"#;
    "hooks, in their order": r#"def hook(name): [{path: "/bin/sh", args: ["sh", "-c", "cat > /oci/out/" + name + "; echo " + name + " >> /oci/out/order"]}];
        .process.args = ["echo", "main"] | .hooks = {prestart: hook("prestart"), createRuntime: hook("createRuntime"), poststart: hook("poststart"), poststop: hook("poststop")}"#, r#"
        $R run c </dev/null; echo $?; cat /oci/out/order
        for f in prestart createRuntime poststart poststop; do jq -cS 'del(.pid, .bundle, .created)' /oci/out/$f; test -e "$(jq -r .bundle /oci/out/prestart)/config.json" || true; done"#;
    "a hook that fails": r#".hooks = {createRuntime: [{path: "/bin/false"}]}"#, r#"
        $R create c </dev/null >/dev/null 2>&1; echo $?; $R list -q; ls /oci/state"#;
    "descriptors are passed on": r#".process.args = ["sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | wc -l"]"#, r#"
        echo three > /oci/out/3; echo four > /oci/out/4
        $R run --preserve-fds 2 c 3</oci/out/3 4</oci/out/4 </dev/null; echo $?"#;
    "who the command is": r#".process.args = ["sh", "-c", "id; pwd; umask; hostname; echo $A $HOME; ulimit -n; cat /proc/self/oom_score_adj; grep -E '^(Cap|NoNew)' /proc/self/status; cat /proc/self/cgroup | grep -c :"]
        | .process.user = {uid: 1000, gid: 1001, additionalGids: [5, 6], umask: 18} | .process.cwd = "/tmp" | .process.env += ["A=b", "HOME=/h"]
        | .process.rlimits = [{type: "RLIMIT_NOFILE", hard: 512, soft: 256}] | .process.oomScoreAdj = 100 | .hostname = "elsewhere""#, r#"
        $R run c </dev/null; echo $?"#;
    "a root that is read-only": r#".root.readonly = true | .process.args = ["sh", "-c", "echo x > /x; echo $?; echo y > /dev/shm/y; echo $?; cat /dev/shm/y"]"#, r#"
        $R run c </dev/null 2>/dev/null; echo $?"#;
    "mounts, masked and read-only paths": r#".mounts += [{destination: "/data", type: "bind", source: "rootfs/etc", options: ["bind", "ro"]}]
        | .process.args = ["sh", "-c", "ls /data | head -3; echo x > /data/x; echo $?; wc -c < /proc/kcore; echo 1 > /proc/sys/kernel/panic; echo $?; ls /proc/scsi; grep -vc fastmig /proc/self/mountinfo"]"#, r#"
        $R run c </dev/null 2>/dev/null; echo $?"#;
    "the host's pid namespace": r#"del(.linux.namespaces[] | select(.type == "pid")) | .process.args = ["sh", "-c", "test $$ -gt 1; echo $?; test -d /proc/1; echo $?; exit 3"]"#, r#"
        $R run c </dev/null; echo $?"#;
    "the host's network and IPC": r#"del(.linux.namespaces[] | select(.type == "network" or .type == "ipc")) | .process.args = ["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; exit 3"]"#, r#"
        $R run c </dev/null; echo $?; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc"#;
    "another container's namespaces": SLEEP, r#"
        $R run -d one </dev/null >/dev/null 2>&1; pid=$($R state one | jq .pid)
        jq --arg p /proc/$pid/ns/ '.linux.namespaces |= map(if .type == "ipc" or .type == "network" or .type == "pid" then .path = $p + (if .type == "network" then "net" else .type end) else . end)
           | .process.args = ["sh", "-c", "ls /proc | grep -c ^1$; readlink /proc/self/ns/ipc; readlink /proc/self/ns/net; exit 2"]' config.json > n; mv n config.json
        $R run two </dev/null >/oci/out/o; echo $?; sed -n 1p /oci/out/o
        test "$(sed -n 2p /oci/out/o)" = "$(readlink /proc/$pid/ns/ipc)"; echo $?; test "$(sed -n 3p /oci/out/o)" = "$(readlink /proc/$pid/ns/net)"; echo $?"#;
    "a user namespace": r#".linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}] | .linux.gidMappings = .linux.uidMappings
        | del(.mounts[] | select(.type == "cgroup")) | .process.args = ["sh", "-c", "id -u; cat /proc/self/uid_map | tr -s ' '; exit 4"]"#, r#"
        chown 100000:100000 rootfs; $R run c </dev/null; echo $?; chown 0:0 rootfs"#;
    "relative paths, from elsewhere": SLEEP, r#"
        bundle=$PWD; cd ..; R="${R%% *} --root state"; $R run -d -b bundle --pid-file out/pid c </dev/null >/dev/null 2>&1; cd /
        R="${R%% *} --root $bundle/../state"; $R state c | jq -r .bundle,.status; $R exec c echo in; $R list -f json | jq -r '.[0].bundle'"#;
    "a descriptor that the command closes is closed": r#".process.args = ["sh", "-c", "exec 3>&-; sleep 2; echo ends"]"#, r#"
        mkfifo /oci/out/f; (cat /oci/out/f >/dev/null; echo the reader sees its end >> /oci/out/o) &
        $R run --preserve-fds 1 c 3>/oci/out/f </dev/null | cat >> /oci/out/o; cat /oci/out/o"#;
    "what a process leaves behind": r#".process.args = ["sh", "-c", "(sleep 600 &) ; exit 0"]"#, r#"
        $R run c </dev/null; echo $?; $R list -q; find /sys/fs/cgroup -maxdepth 2 -name c"#;
};
