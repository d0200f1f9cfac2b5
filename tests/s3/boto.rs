//! boto3 as the second client: it writes as rclone, s3fs, the S3 console and Hadoop do, and reads what we write.

use crate::helpers::{at, content, names, over, put_with, sweep};
use crate::servers::{KEY_ID, Kind, SECRET, venv};
use fourwheel::model::{FileKind, Meta};
use fourwheel::remote::s3::S3Options;
use fourwheel::remote::{Condition, Remote};
use std::collections::BTreeMap;
use std::process::Command;

/// Runs `script` with `c` (a client) and `B` (the bucket); returns what it prints. `None` where boto3 is not there.
fn boto(options: &S3Options, script: &str) -> Option<String> {
    let python = venv().join("bin/python");
    if !python.is_file()
        || !Command::new(&python).args(["-c", "import boto3"]).output().is_ok_and(|o| o.status.success())
    {
        eprintln!("SKIPPED, NOT PASSED: boto3 is not installed");
        return None;
    }
    let head = format!(
        "import boto3, json\nfrom botocore.config import Config\nB = '{}'\n\
         c = boto3.client('s3', endpoint_url='{}', aws_access_key_id='{KEY_ID}', aws_secret_access_key='{SECRET}', \
         region_name='us-east-1', config=Config(s3={{'addressing_style': 'path'}}))\n",
        options.bucket,
        options.endpoint.as_deref().unwrap_or_default()
    );
    let output = Command::new(python).arg("-c").arg(head + script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_other_clients_write_is_read() {
    over(&[Kind::Moto], |server, remote| async move {
        let script = r#"
c.put_object(Bucket=B, Key='rclone', Body=b'r', Metadata={'mtime': '1354040105.123456789'})
c.put_object(Bucket=B, Key='s3fs', Body=b's', Metadata={'mtime': '1354040105', 'mode': '33261', 'uid': '0', 'gid': '0',
    'xattr': '%7B%22user.note%22%3A%22aGk%3D%22%7D'})
c.put_object(Bucket=B, Key='console/', Body=b'')
c.put_object(Bucket=B, Key='hadoop_$folder$', Body=b'')
c.put_object(Bucket=B, Key='marker/', Body=b'data')
c.put_object(Bucket=B, Key='marker/below', Body=b'')
for key in ['a//b', '/lead', 'x/./y', 'x/../y', 'z' * 300, 'implied/deep/file', 'odd +%41&?#"\'\u00e9/\u65e5\u672c', 'both', 'both/below']:
    c.put_object(Bucket=B, Key=key, Body=key.encode()[:5])
up = c.create_multipart_upload(Bucket=B, Key='parts', Metadata={'mtime': '5'})
part = c.upload_part(Bucket=B, Key='parts', UploadId=up['UploadId'], PartNumber=1, Body=b'whole')
c.complete_multipart_upload(Bucket=B, Key='parts', UploadId=up['UploadId'],
    MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': part['ETag']}]})
"#;
        let options = server.bucket_of(&remote);
        if boto(&options, script).is_none() {
            return;
        }
        let all = sweep(&*remote).await;
        let expected = [
            "a/",
            "both (object)",
            "both/",
            "both/below",
            "console/",
            "hadoop/",
            "implied/",
            "implied/deep/",
            "implied/deep/file",
            "marker/",
            "marker/(directory object)",
            "marker/below",
            "odd +%41&?#\"'é/",
            "odd +%41&?#\"'é/日本",
            "parts",
            "rclone",
            "s3fs",
            "x/",
        ];
        assert_eq!(names(&all), expected);
        assert_eq!(remote.keys_skipped(), 5);
        let stat = async |path: &str| remote.stat(&at(path)).await.unwrap().unwrap();
        assert_eq!(stat("rclone").await.meta.unwrap().mtime_ns, Some(1_354_040_105_123_456_789));
        let meta = stat("s3fs").await.meta.unwrap();
        assert_eq!((meta.mtime_ns, meta.mode), (Some(1_354_040_105_000_000_000), Some(0o755)));
        assert_eq!(meta.xattrs, Some(BTreeMap::from([("user.note".to_owned(), b"hi".to_vec())])));
        assert_eq!(stat("hadoop").await.kind, FileKind::Directory);
        assert_eq!(stat("implied").await.kind, FileKind::Directory);
        assert_eq!(stat("both").await.kind, FileKind::Directory);
        assert_eq!(content(&*remote, "both (object)").await, b"both");
        assert_eq!(content(&*remote, "marker/(directory object)").await, b"data");
        assert!(remote.remove(&at("marker"), true, &Condition::Any).await.is_err(), "it holds data");
        assert_eq!(content(&*remote, "parts").await, b"whole");
        // What was uploaded in parts changes its attributes, and moves.
        let set = Meta { mtime_ns: Some(6_500_000_000), ..Meta::default() };
        remote.set_meta(&at("parts"), false, None, &set).await.unwrap();
        remote.rename(&at("parts"), &at("implied/parts"), None, &Condition::Absent).await.unwrap();
        assert_eq!(stat("implied/parts").await.meta.unwrap().mtime_ns, Some(6_500_000_000));
        remote.rename(&at("hadoop"), &at("hadoop2"), None, &Condition::Absent).await.unwrap();
        assert_eq!(stat("hadoop2").await.kind, FileKind::Directory);
        assert_eq!(remote.stat(&at("hadoop")).await.unwrap(), None);
        remote.rename(&at("implied"), &at("there"), None, &Condition::Absent).await.unwrap();
        assert_eq!(content(&*remote, "there/parts").await, b"whole");
        remote.rename(&at("marker"), &at("marker2"), None, &Condition::Absent).await.unwrap();
        assert_eq!(content(&*remote, "marker2/(directory object)").await, b"data");
    });
}

#[test]
fn what_we_write_is_read_by_others() {
    over(&[Kind::Moto, Kind::S3sFs], |server, remote| async move {
        let xattrs = BTreeMap::from([("user.note".to_owned(), b"hi".to_vec())]);
        let meta = Meta { mtime_ns: Some(1_500_000_000_250_000_000), mode: Some(0o640), xattrs: Some(xattrs) };
        put_with(&*remote, "d/a +%41é", b"content", meta.clone(), Condition::Absent).await.unwrap();
        let script = r#"
o = c.get_object(Bucket=B, Key='d/a +%41\u00e9')
print(o['Body'].read().decode(), json.dumps(o['Metadata'], sort_keys=True))
"#;
        let Some(printed) = boto(&server.bucket_of(&remote), script) else { return };
        let metadata = r#"{"mode": "33184", "mtime": "1500000000.25", "xattr": "{\"user.note\":\"aGk=\"}"}"#;
        assert_eq!(printed.trim(), format!("content {metadata}"));
    });
}

#[test]
fn a_directory_keeps_what_a_foreign_marker_says() {
    over(&[Kind::Moto], |server, remote| async move {
        let script =
            "c.put_object(Bucket=B, Key='d/', Body=b'', ContentType='x/y', Metadata={'mode': '16832', 'mine': 'z'})";
        let Some(_) = boto(&server.bucket_of(&remote), script) else { return };
        let change = Meta { mtime_ns: Some(1), ..Meta::default() };
        let entry = remote.set_meta(&at("d"), true, None, &change).await.unwrap();
        assert_eq!(entry.meta.map(|meta| (meta.mtime_ns, meta.mode)), Some((Some(1), Some(0o700))));
        let script = "h = c.head_object(Bucket=B, Key='d/')\nprint(h['ContentType'], h['Metadata']['mine'], h['Metadata']['mtime'])";
        let printed = boto(&server.bucket_of(&remote), script).unwrap();
        assert_eq!(printed.trim(), "x/y z 0.000000001");
    });
}
