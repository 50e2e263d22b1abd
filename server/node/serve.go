package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/register"
)

// The headers of every request. A room's address may have passed to another since the register named it, so a request says whom
// it is for.
const (
	versionHeader = "Carillon-Node"
	roomHeader    = "Carillon-Room"
)

// version is that of the protocol.
var version = strconv.Itoa(1 + nextversion.Step)

// handler serves the other nodes, whom the handshake knows.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /deliver", n.serveDeliver)
	mux.HandleFunc("POST /call", n.serveCall)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, version)
		if n.cfg.Room == "" || r.Header.Get(roomHeader) != string(n.cfg.Room) {
			http.Error(w, "not that room", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (n *Node) serveDeliver(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBatch))
	if err != nil {
		http.Error(w, "no batch", http.StatusBadRequest)
		return
	}
	for len(body) > 0 {
		size, l := binary.Uvarint(body)
		if l <= 0 || size > uint64(len(body)-l) {
			http.Error(w, "no batch", http.StatusBadRequest)
			return
		}
		one := body[l : l+int(size)]
		body = body[l+int(size):]
		d, err := decodeDelivery(one)
		if err != nil {
			n.m.drop(dropUnreadable, 1)
			n.log.Warn("a delivery of another node cannot be read", "err", err)
			continue
		}
		n.m.received.Inc()
		n.cfg.Local.Deliver(d)
	}
	w.WriteHeader(http.StatusNoContent)
}

// call is what is asked of another room. Exactly one part is set.
type call struct {
	Sessions *userCall       `json:"sessions,omitempty"`
	End      *userCall       `json:"end,omitempty"`
	Kick     *kickCall       `json:"kick,omitempty"`
	Retag    *retagCall      `json:"retag,omitempty"`
	Evict    *register.Order `json:"evict,omitempty"`
	Alive    *aliveCall      `json:"alive,omitempty"`
}

// aliveCall asks whether the room holds its lease and takes clients.
type aliveCall struct{}

type userCall struct {
	Product push.ProductID `json:"product"`
	User    push.UserID    `json:"user"`
	Device  push.DeviceID  `json:"device,omitempty"`
}

type kickCall struct {
	Product push.ProductID `json:"product"`
	User    push.UserID    `json:"user"`
	Kick    push.Kick      `json:"kick"`
	Notice  uint64         `json:"notice,omitempty"` // under which it is written down; 0: nowhere
}

type retagCall struct {
	Product push.ProductID `json:"product"`
	Users   []push.UserID  `json:"users"`
}

// answer is what comes back.
type answer struct {
	Sessions []push.LiveSession `json:"sessions,omitempty"`
	Ended    int                `json:"ended,omitempty"`
	Alive    bool               `json:"alive,omitempty"`
}

// maxCall is the most bytes of a call: tags of a few thousand users.
const maxCall = 4 << 20

func (n *Node) serveCall(w http.ResponseWriter, r *http.Request) {
	var c call
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall)).Decode(&c); err != nil {
		http.Error(w, "no call", http.StatusBadRequest)
		return
	}
	a, err := n.obey(r.Context(), &c)
	if err != nil {
		n.log.Warn("what another node asked for failed", "err", err)
		http.Error(w, "failed", http.StatusServiceUnavailable)
		return
	}
	body, err := json.Marshal(a)
	if err != nil {
		n.log.Error("an answer to another node cannot be written", "err", err)
		http.Error(w, "failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(nextversion.Object(body)) // whoever asked may have gone
}

// obey does what a call asks of the local room. What it does not know, of a later version, it refuses.
func (n *Node) obey(ctx context.Context, c *call) (a answer, err error) {
	local := n.cfg.Local
	switch {
	case c.Sessions != nil:
		a.Sessions = local.Sessions(c.Sessions.Product, c.Sessions.User)
	case c.End != nil:
		local.End(c.End.Product, c.End.User, c.End.Device)
	case c.Kick != nil:
		a.Ended, err = n.kick(ctx, c.Kick)
	case c.Retag != nil:
		err = local.Retag(ctx, c.Retag.Product, c.Retag.Users)
	case c.Evict != nil:
		local.Evict(*c.Evict)
	case c.Alive != nil:
		a.Alive = local.Alive()
	default:
		err = push.Errorf(push.KindInvalid, "unknown_call", "a call that this version does not know")
	}
	return a, err
}
