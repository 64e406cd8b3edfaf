//! CRI, as Kubernetes speaks it: critest with runc and with FastMig side by side, and pods under crictl.

mod compare;
mod critest;
mod images;
mod node;
mod pods;
mod registry;
mod side_by_side;
mod tools;

use self::pods::move_out_and_in;
use self::side_by_side::side_by_side;
use crate::framework::{golang, Case, Generation};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "CRI: a container of a pod moves out and in, and the pod stays (trixie)",
        run: |ctx| golang::needed(|| move_out_and_in(ctx, Generation::Trixie)),
    },
    Case {
        name: "CRI: a container of a pod moves out and in, and the pod stays (forky)",
        run: |ctx| golang::needed(|| move_out_and_in(ctx, Generation::Forky)),
    },
    Case {
        name: "critest: what passes with runc passes with FastMig (trixie)",
        run: |ctx| golang::needed(|| side_by_side(ctx, Generation::Trixie)),
    },
    Case {
        name: "critest: what passes with runc passes with FastMig (forky)",
        run: |ctx| golang::needed(|| side_by_side(ctx, Generation::Forky)),
    },
];
