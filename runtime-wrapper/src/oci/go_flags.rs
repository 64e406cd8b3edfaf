//! runc reads its options as Go's flag package does: `-no-subreaper`, as containerd's shim writes, is `--no-subreaper`.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The options of `command` in `arguments`, each with the two dashes that a long name has here. What follows the first
/// word that is no option is left as it is.
pub(crate) fn with_two_dashes(command: &Command, arguments: &[OsString]) -> Vec<OsString> {
    let mut result = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(option) = word.to_str().filter(|word| word.len() > 1 && word.starts_with('-')) else {
            result.push(word.clone());
            break;
        };
        let name = option.trim_start_matches('-');
        let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        let known = command.get_arguments().find(|known| is_called(known, name));
        let one_dash = !option.starts_with("--") && known.is_some_and(|known| known.get_long() == Some(name));
        result.push(if one_dash { format!("-{option}").into() } else { word.clone() });
        if !has_value && known.is_some_and(|known| known.get_action().takes_values()) {
            result.extend(rest.next().cloned());
        }
    }
    result.extend(rest.cloned());
    result
}

fn is_called(argument: &Arg, name: &str) -> bool {
    let short = argument.get_short().is_some_and(|short| name.chars().eq([short]));
    short || argument.get_long() == Some(name)
}

#[cfg(test)]
mod tests {
    use clap::ArgAction::SetTrue;

    use super::*;

    fn read(line: &str) -> String {
        let command = Command::new("restore")
            .arg(Arg::new("detach").long("detach").short('d').action(SetTrue))
            .arg(Arg::new("no-subreaper").long("no-subreaper").action(SetTrue))
            .arg(Arg::new("pid-file").long("pid-file"));
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let words = with_two_dashes(&command, &words);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_long_option_may_have_one_dash() {
        assert_eq!(
            read("-d -no-subreaper --pid-file -detach web"),
            "-d --no-subreaper --pid-file -detach web"
        );
        assert_eq!(read("-pid-file=/p -x web"), "--pid-file=/p -x web");
    }

    #[test]
    fn what_is_no_option_of_ours_is_left_alone() {
        assert_eq!(read("web -detach"), "web -detach");
        assert_eq!(read("- -detach"), "- -detach");
    }
}
