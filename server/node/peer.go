package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// peer is what waits for one other room. Its goroutine lives while something waits: a room that is told nothing costs nothing.
type peer struct {
	node *Node
	room push.RoomID

	// Guarded by mu.
	mu      sync.Mutex
	waiting []byte    // deliveries, each with its length before it
	count   int       // of them
	sending bool      // a goroutine is at it
	quiet   time.Time // nothing is taken before; see quietAfterFailure
}

// quietAfterFailure is how long a room that could not be reached is told nothing, so that one that is gone does not cost a dial for each
// message. Its sweep finds what is persistent.
const quietAfterFailure = time.Second

// Deliver hands a delivery to a room: to this node's at once, to another's with the next batch. It never waits.
func (n *Node) Deliver(room push.RoomID, d *push.Delivery) {
	if n.cfg.Room != "" && room == n.cfg.Room {
		n.cfg.Local.Deliver(d)
		return
	}
	n.peer(room).put(d)
}

// peer returns the queue of a room.
func (n *Node) peer(room push.RoomID) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[room]
	if p == nil {
		n.forgetPeersLocked()
		p = &peer{node: n, room: room}
		n.peers[room] = p
	}
	return p
}

// manyPeers is how many queues are kept before those that are empty are looked for: rooms come and go with every deploy.
const manyPeers = 256

func (n *Node) forgetPeersLocked() {
	if len(n.peers) < manyPeers {
		return
	}
	for id, p := range n.peers {
		p.mu.Lock()
		if !p.sending {
			delete(n.peers, id)
		}
		p.mu.Unlock()
	}
}

// put queues a delivery, or drops it.
func (p *peer) put(d *push.Delivery) {
	n := p.node
	enc := appendDelivery(make([]byte, 0, 256), d)
	now := n.cfg.Clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case now.Before(p.quiet):
		n.m.drop(dropUnreachable, 1)
		return
	case len(p.waiting)+len(enc) > n.cfg.QueueBytes || len(enc) > maxBatch-binary.MaxVarintLen64:
		n.m.drop(dropQueueFull, 1)
		return
	}
	p.waiting = append(binary.AppendUvarint(p.waiting, uint64(len(enc))), enc...)
	p.count++
	if !p.sending {
		if !n.goes(p.send) {
			p.waiting, p.count = nil, 0
			n.m.drop(dropClosed, 1)
			return
		}
		p.sending = true
	}
}

// goes starts a goroutine that Close waits for, and reports whether it did: after Close it does not.
func (n *Node) goes(f func()) bool {
	n.startMu.Lock()
	defer n.startMu.Unlock()
	if n.closed {
		return false
	}
	n.loops.Go(f)
	return true
}

// send sends batches until nothing waits.
func (p *peer) send() {
	for {
		batch, count := p.take()
		if count == 0 {
			return
		}
		err := p.node.sendBatch(p.room, batch)
		if err == nil {
			p.node.m.sent.Add(float64(count))
			continue
		}
		p.node.m.drop(dropUnreachable, count)
		p.node.log.Warn("a room could not be told of messages", "room", p.room, "deliveries", count, "err", err)
		p.mu.Lock()
		p.quiet = p.node.cfg.Clock.Now().Add(quietAfterFailure)
		p.mu.Unlock()
	}
}

// take returns what goes next: all that waits, up to the bound of a batch and one delivery at least. With nothing it ends the sending.
func (p *peer) take() (batch []byte, count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == 0 {
		p.sending, p.waiting = false, nil
		return nil, 0
	}
	if len(p.waiting) <= p.node.cfg.BatchBytes {
		batch, count = p.waiting, p.count
		p.waiting, p.count = nil, 0
		return batch, count
	}
	end := 0
	for end < len(p.waiting) {
		n, l := binary.Uvarint(p.waiting[end:])
		if next := end + l + int(n); count == 0 || next <= p.node.cfg.BatchBytes {
			end, count = next, count+1
			continue
		}
		break
	}
	batch = p.waiting[:end:end]
	p.waiting, p.count = p.waiting[end:], p.count-count
	return batch, count
}

// sendBatch sends one batch and waits for the answer.
func (n *Node) sendBatch(to push.RoomID, batch []byte) error {
	ctx, cancel := context.WithTimeout(n.life, n.cfg.Timeout)
	defer cancel()
	room, err := n.find(ctx, to)
	if err != nil {
		return err
	}
	body, err := n.post(ctx, room, "deliver", "application/octet-stream", batch)
	if err != nil {
		return err
	}
	return body.Close()
}

// find returns a room whose lease holds.
func (n *Node) find(ctx context.Context, id push.RoomID) (register.Room, error) {
	rooms, err := n.cfg.Register.Rooms(ctx)
	if err != nil {
		return register.Room{}, err
	}
	for _, r := range rooms {
		if r.ID == id {
			return r, nil
		}
	}
	return register.Room{}, push.Errorf(push.KindUnavailable, "room_gone", "the room's lease has ended")
}

// post makes a request to a room and returns the body of an answer that is none of failure.
func (n *Node) post(ctx context.Context, to register.Room, what, kind string, body []byte) (io.ReadCloser, error) {
	if to.Addr == "" {
		return nil, push.Errorf(push.KindUnavailable, "room_unreachable", "the room has no address for nodes")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.Addr+"/"+what, bytes.NewReader(body))
	if err != nil {
		return nil, &push.Error{Kind: push.KindInternal, Code: "room_unreachable", Err: err}
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set(versionHeader, version)
	req.Header.Set(roomHeader, string(to.ID))
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, &push.Error{Kind: push.KindUnavailable, Code: "room_unreachable", Err: err}
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	resp.Body.Close()
	return nil, push.Errorf(push.KindUnavailable, "room_refused", "the other node answered %d", resp.StatusCode)
}
