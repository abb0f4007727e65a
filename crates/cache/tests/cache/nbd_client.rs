//! A small NBD client after doc/proto.md, which can also say what no good client says.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

#[derive(Debug)]
pub struct NbdClient {
    pub stream: UnixStream,
    pub size_bytes: u64,
    pub flags: u16,
    structured: bool,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl NbdClient {
    /// Up to where options begin.
    pub fn greet(socket: &Path) -> UnixStream {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        stream.write_all(&3_u32.to_be_bytes()).unwrap();
        stream
    }

    pub fn open(socket: &Path, name: &str, structured: bool) -> Result<Self, String> {
        let mut stream = Self::greet(socket);
        if structured {
            send_option(&mut stream, 8, &[]);
            assert_eq!(option_reply(&mut stream).unwrap().0, 1);
        }
        let data = [&(name.len() as u32).to_be_bytes(), name.as_bytes(), &[0, 0]].concat();
        send_option(&mut stream, 7, &data);
        let (mut size_bytes, mut flags) = (0, 0);
        loop {
            let (kind, data) = option_reply(&mut stream).map_err(|error| error.to_string())?;
            match kind {
                1 => break,
                3 if data[..2] == [0, 0] => {
                    size_bytes = u64::from_be_bytes(data[2..10].try_into().unwrap());
                    flags = u16::from_be_bytes(data[10..12].try_into().unwrap());
                }
                3 => {}
                _ => return Err(String::from_utf8(data).unwrap()),
            }
        }
        Ok(Self {
            stream,
            size_bytes,
            flags,
            structured,
        })
    }

    pub fn send(&mut self, kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) {
        let message = [
            &0x2560_9513_u32.to_be_bytes()[..],
            &flags.to_be_bytes(),
            &kind.to_be_bytes(),
            &cookie.to_be_bytes(),
            &offset.to_be_bytes(),
            &length.to_be_bytes(),
        ]
        .concat();
        self.stream.write_all(&message).unwrap();
    }

    /// A reply: its cookie, and the bytes (none but of a read of `length`) or the error number.
    pub fn receive(&mut self, length: usize) -> io::Result<(u64, Result<Vec<u8>, u32>)> {
        let magic = self.u32()?;
        if !self.structured {
            assert_eq!(magic, 0x6744_6698);
            let number = self.u32()?;
            let cookie = self.u64()?;
            return match number {
                0 => Ok((cookie, Ok(self.bytes(length)?))),
                number => Ok((cookie, Err(number))),
            };
        }
        assert_eq!(magic, 0x668e_33ef);
        let flags_and_kind = self.u32()?;
        let cookie = self.u64()?;
        let count = self.u32()? as usize;
        let data = self.bytes(count)?;
        assert_eq!(flags_and_kind >> 16, 1, "whole replies only");
        let answer = match flags_and_kind as u16 {
            0 => Ok(vec![]),
            1 => Ok(data[8..].to_vec()),
            0x8001 => Err(u32::from_be_bytes(data[..4].try_into().unwrap())),
            kind => panic!("a reply of the kind {kind}"),
        };
        Ok((cookie, answer))
    }

    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        self.send(0, 0, offset ^ 77, offset, length);
        let (cookie, answer) = self.receive(length as usize).unwrap();
        assert_eq!(cookie, offset ^ 77);
        answer
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.bytes(4)?.try_into().unwrap()))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.bytes(8)?.try_into().unwrap()))
    }

    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

pub fn send_option(stream: &mut UnixStream, option: u32, data: &[u8]) {
    let head = [option.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
    // A server that has had enough closes.
    let _ = stream.write_all(b"IHAVEOPT");
    let _ = stream.write_all(&head);
    let _ = stream.write_all(data);
}

/// Kind and data.
pub fn option_reply(stream: &mut UnixStream) -> io::Result<(u32, Vec<u8>)> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    assert_eq!(&head[..8], &0x3_e889_0455_65a9_u64.to_be_bytes());
    let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
    let mut data = vec![0; u32::from_be_bytes(head[16..].try_into().unwrap()) as usize];
    stream.read_exact(&mut data)?;
    Ok((kind, data))
}
