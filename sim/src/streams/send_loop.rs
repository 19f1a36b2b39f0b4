//! The least that a server of event streams can do: for every message one `send(2)` on every socket, in one thread, and
//! nothing else. Other servers are held against it.
//!
//! With a log it is the least that a server can do which loses nothing: what was posted meanwhile is appended to a file,
//! which is synced once, before the posts are answered and sent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::limits;

const LISTENER: Token = Token(usize::MAX);
/// The largest request.
const LARGEST: usize = 64 << 10;
/// Bytes that may wait for a socket.
const MOST_LEFT: usize = 1 << 20;

/// The flags of `mychat sim send-loop`.
#[derive(Debug, Clone, Args)]
pub struct SendLoopArgs {
    /// Where it takes `POST /pub/CHANNEL` and `GET /sub/CHANNEL`
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,

    /// How many streams it has to hold
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub streams: u32,

    /// Bring each message to the disk, in this new file, before it is answered and sent
    #[arg(long, value_name = "FILE")]
    pub to_disk: Option<PathBuf>,
}

struct Conversation {
    tcp: TcpStream,
    /// What came and is no whole request yet.
    request: Vec<u8>,
    /// What the socket did not take yet.
    left: Vec<u8>,
}

/// Serves until it is killed.
pub fn run(args: &SendLoopArgs) -> anyhow::Result<()> {
    limits::raise(args.streams)?;
    let log = args
        .to_disk
        .as_deref()
        .map(|path| File::create_new(path).with_context(|| format!("--to-disk {}", path.display())));
    let mut server = Server::bind(args.listen, log.transpose()?)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept()?,
                Token(at) => server.serve(at)?,
            }
        }
        server.publish()?;
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    /// Somebody may wait for whom there was no descriptor.
    full: bool,
    all: Slab<Conversation>,
    channels: HashMap<String, Vec<usize>>,
    /// What was posted and is not sent.
    posts: Vec<Post>,
    log: Option<File>,
    piece: Vec<u8>,
}

struct Post {
    by: usize,
    channel: String,
    event: Vec<u8>,
}

impl Server {
    fn bind(address: SocketAddr, log: Option<File>) -> anyhow::Result<Self> {
        let mut listener = TcpListener::bind(address).with_context(|| format!("--listen {address}"))?;
        socket2::SockRef::from(&listener).listen(4096)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (all, channels, posts, piece) = (Slab::new(), HashMap::new(), Vec::new(), vec![0; 64 << 10]);
        Ok(Self { poll, listener, full: false, all, channels, posts, log, piece })
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut tcp = match self.listener.accept() {
                Ok((tcp, _)) => tcp,
                // The next one may be there all the same.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => {
                    // Whoever waits is not announced once more.
                    self.full = error.kind() != ErrorKind::WouldBlock;
                    return Ok(());
                }
            };
            let _ = tcp.set_nodelay(true);
            let entry = self.all.vacant_entry();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut tcp, Token(entry.key()), both)?;
            entry.insert(Conversation { tcp, request: Vec::new(), left: Vec::new() });
        }
    }

    /// Does what can be done for one of those who are connected.
    fn serve(&mut self, at: usize) -> io::Result<()> {
        let Some(conversation) = self.all.get_mut(at) else { return Ok(()) };
        let going = conversation.flush().is_ok() && conversation.read(&mut self.piece);
        if !going {
            self.all.remove(at);
            self.channels.values_mut().for_each(|members| members.retain(|member| *member != at));
            // Its place may be another one's before they are answered.
            self.posts.retain(|post| post.by != at);
            return if self.full { self.accept() } else { Ok(()) };
        }
        while let Some(asked) = self.all.get_mut(at).and_then(Conversation::take) {
            match asked {
                Asked::Subscribe(channel) => {
                    let head =
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                    self.all[at].send(head);
                    self.channels.entry(channel).or_default().push(at);
                }
                Asked::Publish(channel, body) => {
                    let event = [b"data: ", &body[..], b"\n\n"].concat();
                    self.posts.push(Post { by: at, channel, event });
                }
            }
        }
        // One sync serves all who post at the same time.
        if self.log.is_none() { self.publish() } else { Ok(()) }
    }

    /// Answers and sends what was posted, once it is on the disk if there is a log.
    fn publish(&mut self) -> io::Result<()> {
        if let Some(log) = &mut self.log
            && !self.posts.is_empty()
        {
            let events: Vec<u8> = self.posts.iter().flat_map(|post| &post.event).copied().collect();
            log.write_all(&events)?;
            log.sync_data()?;
        }
        for Post { by, channel, event } in self.posts.drain(..) {
            if let Some(poster) = self.all.get_mut(by) {
                poster.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
            }
            for member in self.channels.get(&channel).into_iter().flatten() {
                self.all[*member].send(&event);
            }
        }
        Ok(())
    }
}

enum Asked {
    Subscribe(String),
    Publish(String, Vec<u8>),
}

impl Conversation {
    fn send(&mut self, bytes: &[u8]) {
        if !self.left.is_empty() {
            return self.leave(bytes);
        }
        match self.tcp.write(bytes) {
            Ok(taken) => self.leave(&bytes[taken..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.leave(bytes),
            // It is found broken when it is read.
            Err(_) => {}
        }
    }

    /// Keeps what the socket did not take. Who reads so slowly that it becomes too much is hung up on.
    fn leave(&mut self, bytes: &[u8]) {
        if self.left.len() + bytes.len() <= MOST_LEFT {
            self.left.extend_from_slice(bytes);
        } else {
            let _ = self.tcp.shutdown(Shutdown::Both);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.left.is_empty() {
            match self.tcp.write(&self.left) {
                Ok(taken) => drop(self.left.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is; `false` when the client has gone.
    fn read(&mut self, piece: &mut [u8]) -> bool {
        loop {
            match self.tcp.read(piece) {
                Ok(0) => return false,
                Ok(size) => self.request.extend_from_slice(&piece[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.request.len() <= LARGEST,
                Err(_) => return false,
            }
        }
    }

    /// A whole request, if there is one.
    fn take(&mut self) -> Option<Asked> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(head) = parsed.parse(&self.request).ok()? else { return None };
        let length = parsed.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
        let end = head.checked_add(length.unwrap_or_default())?;
        let body = self.request.get(head..end)?.to_vec();
        let path = parsed.path?;
        let asked = match path.strip_prefix("/pub/") {
            Some(channel) => Asked::Publish(channel.to_owned(), body),
            None => Asked::Subscribe(path.strip_prefix("/sub/").unwrap_or(path).to_owned()),
        };
        self.request.drain(..end);
        if self.request.is_empty() {
            self.request = Vec::new();
        }
        Some(asked)
    }
}
