//! The calls of [`super::Remote`] as values, for the layers that treat them by kind.

/// One call of the trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Sweep,
    List,
    Changes,
    Stat,
    Read,
    ReadLink,
    Put,
    PutLink,
    Begin,
    Part,
    PartCopy,
    Parts,
    Finish,
    Abort,
    Mkdir,
    Rename,
    Remove,
    Copy,
    SetMeta,
    Quota,
}

impl Call {
    /// Every call, in the order of the trait.
    pub const ALL: [Call; 20] = [
        Call::Sweep,
        Call::List,
        Call::Changes,
        Call::Stat,
        Call::Read,
        Call::ReadLink,
        Call::Put,
        Call::PutLink,
        Call::Begin,
        Call::Part,
        Call::PartCopy,
        Call::Parts,
        Call::Finish,
        Call::Abort,
        Call::Mkdir,
        Call::Rename,
        Call::Remove,
        Call::Copy,
        Call::SetMeta,
        Call::Quota,
    ];

    /// The name of the method.
    pub const fn name(self) -> &'static str {
        match self {
            Call::Sweep => "sweep",
            Call::List => "list",
            Call::Changes => "changes",
            Call::Stat => "stat",
            Call::Read => "read",
            Call::ReadLink => "read_link",
            Call::Put => "put",
            Call::PutLink => "put_link",
            Call::Begin => "begin",
            Call::Part => "part",
            Call::PartCopy => "part_copy",
            Call::Parts => "parts",
            Call::Finish => "finish",
            Call::Abort => "abort",
            Call::Mkdir => "mkdir",
            Call::Rename => "rename",
            Call::Remove => "remove",
            Call::Copy => "copy",
            Call::SetMeta => "set_meta",
            Call::Quota => "quota",
        }
    }

    /// Whether content goes over the wire, so that the call may take long.
    pub const fn moves_content(self) -> bool {
        matches!(self, Call::Read | Call::Put | Call::Part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_its_place_in_the_table() {
        assert!(Call::ALL.iter().enumerate().all(|(at, call)| *call as usize == at));
    }
}
