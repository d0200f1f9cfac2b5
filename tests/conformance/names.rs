//! Names: any that a Linux program may use, through the mapping.

use super::World;
use super::world::{at, expect_kind};
use fourwheel::error::Kind;
use fourwheel::remote::{Condition, names};

fn difficult() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "plain",
        "with space",
        " leading",
        "trailing ",
        "trailing.",
        "...",
        "-dash",
        "~tilde",
        ".hidden",
        "100%",
        "a%20b",
        "%2F",
        "%",
        "a#b",
        "a?b=c&d",
        "a+b",
        "a;b",
        "a&b",
        "a=b",
        "a,b",
        "a:b",
        "a@b",
        "a$b",
        "a!b",
        "a*b",
        "a|b",
        "a^b",
        "a`b",
        "'single'",
        "\"double\"",
        "back\\slash",
        "<tag>",
        "{brace}",
        "[bracket]",
        "(paren)",
        "a\tb",
        "a\nb",
        "\u{1}",
        "\u{7f}",
        "é",
        "e\u{301}",
        "ß",
        "日本語",
        "имя",
        "عربي",
        "🚲",
        "👩‍👩‍👧",
        "：",
        "‛",
        "‛FF",
        "␀",
        "／",
        "．",
        "␠",
        "x.rclonelink",
        "x．rclonelink",
        "CON",
        "desktop.ini",
        "~$lock.docx",
        ".~lock.x#",
        "index.html",
        "..a",
        "a..",
        "Icon\r",
        "\u{feff}bom",
        "\u{202e}rtl",
        "&amp;",
        "<!--",
        "]]>",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    all.extend([b"\xff".to_vec(), b"latin\xe9".to_vec(), b"\xe2\x80".to_vec(), b"a\x80b".to_vec()]);
    all.push(vec![b'x'; 255]);
    all.push("é".repeat(127).into_bytes());
    all.push("🚲".repeat(63).into_bytes());
    all
}

pub async fn every_name_survives(world: World) {
    let rules = world.able().names.clone();
    world.put("file", b"x").await;
    for name in difficult() {
        let shown = String::from_utf8_lossy(&name).into_owned();
        let mapped = match names::encode(&name, &rules) {
            Ok(mapped) => mapped,
            Err(error) if error.kind == Kind::NameTooLong => {
                world.skip(&format!("{shown:?} is too long here when mapped"));
                continue;
            }
            Err(error) => panic!("{shown:?}: {error}"),
        };
        if !world.able().symlinks && names::is_link_name(&mapped) {
            panic!("{shown:?} would be read as a link");
        }
        world.put(&mapped, &name).await;
        assert_eq!(world.content(&mapped).await, name, "{shown:?}");
        let mut listed = world.names("").await;
        listed.retain(|found| found != "file");
        assert_eq!(listed, [mapped.as_str()], "{shown:?}");
        assert_eq!(names::decode(&listed[0], &rules), name);
        world.rename(&mapped, "moved", Condition::Absent).await.unwrap();
        world.rename("moved", &mapped, Condition::Absent).await.unwrap();
        assert_eq!(world.content(&mapped).await, name, "{shown:?} after two moves");
        world.remote.remove(&at(&mapped), false, &Condition::Any).await.unwrap();
        if world.able().directories {
            world.mkdir(&mapped).await;
            let inside = format!("{mapped}/{mapped}");
            world.put(&inside, b"inside").await;
            assert_eq!(world.names(&mapped).await, [mapped.as_str()], "{shown:?}");
            world.remote.remove(&at(&inside), false, &Condition::Any).await.unwrap();
            world.remote.remove(&at(&mapped), true, &Condition::Any).await.unwrap();
        }
        assert_eq!(world.names("").await, ["file"], "{shown:?} is gone");
    }
}

pub async fn names_that_differ_in_case_are_two_or_one(world: World) {
    world.put("case", b"lower").await;
    if world.able().case_sensitive {
        world.put("Case", b"upper").await;
        assert_eq!(world.names("").await.len(), 2);
        assert_eq!(world.content("case").await, b"lower"[..]);
    } else {
        expect_kind(world.write("Case", b"upper", Condition::Absent).await, &[Kind::Precondition]);
        assert_eq!(world.names("").await, ["case"]);
        world.rename("case", "Case", Condition::Absent).await.unwrap();
        assert_eq!(world.names("").await, ["Case"]);
    }
}

pub async fn a_name_that_is_too_long_is_refused(world: World) {
    let name = "x".repeat(world.able().names.name_bytes_max + 1);
    let refused = [Kind::NameTooLong, Kind::NameRefused, Kind::Invalid];
    expect_kind(world.write(&name, b"x", Condition::Any).await, &refused);
    assert_eq!(world.names("").await, [""; 0]);
}
