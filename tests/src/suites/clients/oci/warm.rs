//! What FastMig adds to runc's command line.

use super::pair::{host, Question};
use crate::framework::{Case, Ctx, Generation, Outcome};

macro_rules! warm {
    ($($name:literal : $edit:expr, $script:expr => $expected:expr;)*) => {
        &[$(
            Case {
                name: concat!("beyond runc: ", $name, " (trixie)"),
                run: |ctx| ask(ctx, Generation::Trixie, Question { edit: $edit, script: $script }, &$expected),
            },
            Case {
                name: concat!("beyond runc: ", $name, " (forky)"),
                run: |ctx| ask(ctx, Generation::Forky, Question { edit: $edit, script: $script }, &$expected),
            },
        )*]
    };
}

fn ask(ctx: &Ctx, generation: Generation, question: Question, expected: &[&str]) -> Outcome {
    host(ctx, generation).and_then(|host| question.fastmig_says(&host, expected)).into()
}

/// Counts on, so that a restored one is told from a fresh one.
const COUNT: &str =
    r#".process.args = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done"]"#;

const SLEEP: &str = r#".process.args = ["sleep", "600"]"#;

/// Helpers of the scripts: `at N` waits until the counter has passed N, `last` is where it stands.
macro_rules! counting {
    ($script:literal) => {
        concat!(
            "set -e\nlast() { tail -n 1 /oci/out/o 2>/dev/null || :; }\n",
            "at() { for i in $(seq 300); do n=$(last); test \"${n:-0}\" -ge $1 && return; sleep 0.05; done; echo stuck at $n; return 1; }\n",
            "gone() { for i in $(seq 100); do $R state $1 | grep -q stopped && return; sleep 0.05; done; return 1; }\n",
            $script
        )
    };
}

pub(super) const CASES: &[Case] = warm! {
    "a checkpoint ends the container, a restore makes it anew": COUNT, counting!(r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 10
        $R checkpoint --image-path /oci/out/ck --work-path /oci/out c; gone c; n=$(last); $R delete c
        $R restore -d --image-path /oci/out/ck --work-path /oci/out --pid-file /oci/out/pid c </dev/null 2>&1 | cat >/oci/out/o2 & sleep 0.7; test $(head -n 1 /oci/out/o2) = $((n + 1)) && echo it went on
        test "$(cat /oci/out/pid)" = "$($R state c | jq .pid)" && echo the pid is right"#)
        => ["it went on", "the pid is right"];
    "--leave-running lets it run": COUNT, counting!(r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 5
        $R checkpoint --leave-running --image-path /oci/out/ck c; n=$(last); at $((n + 5)); $R state c | jq -r .status"#)
        => ["running"];
    "standby, run and restore in the same container": COUNT, counting!(r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 20; pid=$($R state c | jq .pid)
        $R checkpoint --standby --image-path /oci/out/ck c; n=$(last); fastmig status c; $R state c | jq -r .status
        $R exec c echo a session in standby
        $R restore --image-path /oci/out/ck c; at $((n + 5))
        fastmig standby c; fastmig run c; sleep 0.3; test $(last) -lt $n && echo from scratch
        test $pid = $($R state c | jq .pid) && echo the same container"#)
        => ["in standby", "running", "a session in standby", "from scratch", "the same container"];
    "annotations decide how it starts": r#".annotations = {"fastmig.dev/start": "standby"} | .process.args = ["sh", "-c", "echo it runs; exit 5"]"#, r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & for i in $(seq 100); do fastmig status c 2>/dev/null | grep -q standby && break; sleep 0.05; done; fastmig status c; test ! -s /oci/out/o && echo silent
        fastmig run c; for i in $(seq 100); do $R state c | grep -q stopped && break; sleep 0.05; done; cat /oci/out/o"#
        => ["in standby", "silent", "it runs"];
    "a wrong annotation is refused": r#".annotations = {"fastmig.dev/start": "later"}"#, r#"
        $R run -d c </dev/null 2>&1 >/dev/null && exit 1; $R list -q | wc -l; ls /run/fastmig/*/c 2>/dev/null; true"#
        => ["fastmig.dev/start", "later", "0"];
    "a damaged checkpoint leaves nothing": COUNT, counting!(r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 5
        $R checkpoint --image-path /oci/out/ck c; gone c; $R delete c; rm /oci/out/ck/pages-1.img
        if $R --log /oci/out/log --log-format json restore -d --image-path /oci/out/ck c </dev/null >/dev/null 2>&1; then exit 1; fi
        jq -r .msg /oci/out/log; echo left: $($R list -q)"#)
        => ["is damaged", "pages-1.img", "left:\n"];
    "what runc can and FastMig cannot is said": COUNT, counting!(r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 5
        for option in --pre-dump --lazy-pages '--parent-path /x' '--page-server 127.0.0.1:1'; do
            if $R checkpoint $option --image-path /oci/out/ck c 2>&1; then exit 1; fi
        done; at 10; test ! -e /oci/out/ck && echo nothing written"#)
        => ["--pre-dump is not possible", "--parent-path is not possible", "leave the option out", "nothing written"];
    "a bundle makes a new container, whatever others are called": COUNT, counting!(r#"
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 5
        $R checkpoint --image-path /oci/out/ck c; gone c; $R delete c
        jq '.annotations = {"fastmig.dev/start": "standby"}' config.json > n; mv n config.json; $R run -d c-2 </dev/null 2>&1 | cat & sleep 0.5
        fastmig restore -d --image-path /oci/out/ck c </dev/null 2>&1 | cat >/oci/out/o2 & sleep 1; fastmig status c-2; fastmig status c; fastmig delete --force c"#)
        => ["c-2	in standby", "/c	running"];
    "what a killed create left can be deleted": COUNT, r#"
        $R run -d c </dev/null >/dev/null 2>&1; d=$(dirname /run/fastmig/*/c/state.json); $R delete --force c
        mkdir $d; $R create c </dev/null 2>&1; $R delete --force c; echo deleted $?; $R create c </dev/null >/dev/null 2>&1; echo created $?"#
        => ["already exists", "deleted 0", "created 0"];
    "what runc deleted without us is forgotten": SLEEP, r#"
        $R run -d c </dev/null >/dev/null 2>&1; runc --root /oci/state delete --force c; $R create c </dev/null 2>&1 >/dev/null; echo created $?"#
        => ["created 0"];
    "a runc that hangs is killed, in the foreground too":
        r#".hooks = {createRuntime: [{path: "/bin/sleep", args: ["sleep", "600"]}]}"#, r#"
        mkdir -p /etc/fastmig; printf '[limits]
runc = 2
' > /etc/fastmig/config.toml; trap 'clear; rm /etc/fastmig/config.toml; pkill -g $hook' EXIT
        for c in 'run a' 'create b' 'run -d c'; do timeout 20 $R $c </dev/null >/oci/out/o 2>&1; echo code $?; cat /oci/out/o; done
        sleep 1; hook=$(pgrep -x sleep | tail -1); echo left: $($R list -q; ls -d /run/fastmig/*/[abc] 2>/dev/null)"#
        => ["did not end within 2s and was killed", "left:
"];
    "a root's name may begin with anything": r#".process.args = ["echo", "it runs"]"#, r#"
        ${R%% *} --root /oci/state/.-hidden run c </dev/null"#
        => ["it runs"];
    "why it is left to runc": r#"del(.linux.namespaces[] | select(.type == "pid")) | .process.args = ["sleep", "600"]"#, r#"
        $R run -d c </dev/null >/dev/null 2>&1; fastmig status c; fastmig checkpoint --standby --image-path /oci/out/ck c 2>&1; echo code $?; $R delete -f c; ls -d /run/fastmig/*/c 2>/dev/null; true"#
        => ["left to runc: it has no pid namespace of its own", "is not under FastMig's init", "code 1"];
    "crun in runc's place": COUNT, counting!(r#"
        R='fastmig --runtime-binary crun --root /oci/state'; trap '$R delete -f c' EXIT
        $R run -d c </dev/null 2>&1 | cat >/oci/out/o & at 5
        $R pause c; $R state c | jq -r .status; $R resume c; $R exec c echo a session; crun --root /oci/state list | grep -c running
        $R checkpoint --image-path /oci/out/ck c; gone c; n=$(last); $R delete c
        $R restore -d --image-path /oci/out/ck c </dev/null 2>&1 | cat >/oci/out/o & at $((n + 5)); $R kill c KILL; gone c; $R delete c
        jq '.process.args = ["sh", "-c", "exit 7"]' config.json > n; mv n config.json; $R run c </dev/null || echo code $?"#)
        => ["paused", "a session", "code 7"];
    "ourselves behind ourselves is refused": ".", r#"
        fastmig --runtime-binary fastmig list 2>&1; fastmig --runtime-binary fastmig features 2>&1; fastmig --runtime-binary /nonexistent features 2>&1; true"#
        => ["is fastmig itself", "could not start /nonexistent"];
};
