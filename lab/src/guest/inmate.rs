//! What the program `lab-inmate` does in the containers of a [menagerie](super::menagerie): static, so that an image needs
//! nothing else for it.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// What an image's directory holds for [`change`]: files by their path, each with its content.
pub const CHANGEABLE: &[(&str, &str)] = &[
    ("index.html", "<h1>the front page</h1>\n"),
    ("kept.txt", "as it was in the image\n"),
    ("appended.log", "first line\n"),
    ("deleted.txt", "deleted in the container\n"),
    ("deleted/one", "1"),
    ("deleted/deeper/two", "2"),
    ("becomes-a-directory", "a file in the image\n"),
    ("becomes-a-file/inside", "in a directory in the image\n"),
    ("becomes-a-link", "a file in the image\n"),
    ("emptied-and-filled/old-one", "old"),
    ("emptied-and-filled/old-two", "old"),
    ("touched/same-content", "same"),
    ("mode", "another mode"),
    ("owner", "another owner"),
    ("attribute", "another attribute"),
    ("renamed", "another name"),
];

/// Does to a directory with [`CHANGEABLE`] all that can be done to what an image holds.
///
/// # Errors
/// When something of it is not there.
pub fn change(dir: &Path) -> Result<()> {
    let at = |name: &str| dir.join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text).with_context(|| format!("cannot write {name}"));
    let append = OpenOptions::new().append(true).open(at("appended.log"));
    append.and_then(|mut log| log.write_all(b"second line\n")).context("cannot append")?;
    fs::remove_file(at("deleted.txt")).context("cannot delete")?;
    fs::remove_dir_all(at("deleted")).context("cannot delete a directory")?;
    fs::remove_file(at("becomes-a-directory"))?;
    fs::create_dir(at("becomes-a-directory"))?;
    write("becomes-a-directory/inside", "new\n")?;
    fs::remove_dir_all(at("becomes-a-file"))?;
    write("becomes-a-file", "now a file\n")?;
    fs::remove_file(at("becomes-a-link"))?;
    symlink("kept.txt", at("becomes-a-link"))?;
    fs::remove_dir_all(at("emptied-and-filled"))?;
    fs::create_dir(at("emptied-and-filled"))?;
    write("emptied-and-filled/new", "new")?;
    write("touched/same-content", "same")?;
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o4711))?;
    chown(at("owner"), Some(4242), Some(4243))?;
    // One that Docker carries along: the user.* ones it drops from a commit.
    xattr::set(at("attribute"), "security.capability", &super::odd_tree::capability())?;
    fs::rename(at("renamed"), at("renamed-in-the-container")).context("cannot rename")?;
    write("added.txt", "by the container\n")?;
    fs::create_dir_all(at("added/deeper"))?;
    fs::hard_link(at("added.txt"), at("added/deeper/the-same"))?;
    Ok(())
}

/// Prints `lines` numbered lines on each of standard output and standard error, some of them odd, the last unfinished.
///
/// # Errors
/// When nobody reads.
pub fn talk(lines: u32) -> Result<()> {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    for number in 0..lines {
        out.write_all(&line("out", number))?;
        err.write_all(&line("err", number))?;
    }
    out.write_all(b"unfinished on stdout")?;
    err.write_all(b"unfinished on stderr")?;
    out.flush()?;
    Ok(())
}

/// The last two lines that [`talk`] finishes on a stream, `out` or `err`.
#[must_use]
pub fn last_lines(stream: &str, lines: u32) -> Vec<u8> {
    (lines.saturating_sub(2)..lines).flat_map(|number| line(stream, number)).collect()
}

fn line(stream: &str, number: u32) -> Vec<u8> {
    let odd: &[u8] = match number % 16 {
        3 => b"",
        5 => b" {\"log\":\"looks like JSON\\n\",\"stream\":\"stdout\"}",
        7 => b" carriage return\r",
        9 => b" \x1b[31mred\x1b[0m \x00 \x07",
        11 => b" not utf-8: \xff\xfe\xe9",
        13 => " ünïcödé <&> \u{2028}".as_bytes(),
        // Longer than Docker takes at once.
        15 => return [vec![b'x'; 20_000], b"\n".to_vec()].concat(),
        _ => b" plain",
    };
    if odd.is_empty() {
        return b"\n".to_vec();
    }
    [format!("{stream} {number}").as_bytes(), odd, b"\n"].concat()
}

/// Rewrites a byte in the middle of a large file, so that a driver that copies whole files must copy it.
///
/// # Errors
/// When it is not there or empty.
pub fn touch_middle(file: &Path) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(file)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(middle))?;
    file.write_all(&byte.map(|old| !old))?;
    Ok(())
}
