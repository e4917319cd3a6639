"""A TCP relay: `tcp_relay.py LISTEN_HOST PORT TO_HOST PORT`.

A link that is dialled through it cannot use UDP. Bytes are spliced in the kernel and
never read here; a thread for each direction.
"""

import fcntl
import os
import socket
import sys
import threading

PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031


def carry(source, target):
    outlet, inlet = os.pipe()
    fcntl.fcntl(inlet, F_SETPIPE_SZ, PIPE_BYTES)
    try:
        while count := os.splice(source.fileno(), inlet, PIPE_BYTES):
            while count:
                count -= os.splice(outlet, target.fileno(), count)
    except OSError:
        pass
    finally:
        os.close(outlet)
        os.close(inlet)
        for end, how in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
            try:
                end.shutdown(how)
            except OSError:
                pass


def main():
    host, port, to_host, to_port = sys.argv[1:]
    listener = socket.create_server((host, int(port)))
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((to_host, int(to_port)))
        except OSError:
            near.close()
            continue
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=carry, args=ends, daemon=True).start()


if __name__ == "__main__":
    main()
