package room

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
)

// Heartbeats are intervals for some transports and platforms. The most specific one counts: that of both, of the transport, of
// the platform, and last Config.Heartbeat. What concerns polls names them: an interval of theirs is how long one is held.
type Heartbeats map[HeartbeatOf]time.Duration

// HeartbeatOf is whom an interval is for. At least one of both is named.
type HeartbeatOf struct {
	Transport transport.Kind // empty: any but LongPoll
	Platform  string         // by its name; empty: any
}

// The bounds of an interval. A poll that is held much longer than a minute meets proxies that give up the request.
const (
	leastHeartbeat = time.Second
	mostHeartbeat  = time.Hour
	mostHold       = 60 * time.Second
	defaultHold    = 55 * time.Second
)

// beatSpread is the part of an interval by which clients differ, so that those of one moment do not beat together: each is told
// up to a tenth less than what was configured.
const beatSpread = 10

// beats are the intervals of all transports and platforms, so that looking one up costs nothing.
type beats [len(kindNames)][platforms]time.Duration

// platforms is as many as a push.PlatformSet has room for.
const platforms = 8

// compile checks the intervals and fills the table.
func (h Heartbeats) compile(standard time.Duration) (*beats, error) {
	for of, d := range h {
		most := mostHeartbeat
		if of.Transport == transport.LongPoll {
			most = mostHold
		}
		switch {
		case of == HeartbeatOf{}:
			return nil, errors.New("room: heartbeats: everybody's interval is Heartbeat")
		case of.Transport != "" && numberOf(of.Transport) == 0:
			return nil, fmt.Errorf("room: heartbeats: there is no transport %q", of.Transport)
		case of.Platform != "" && !isPlatform(of.Platform):
			return nil, fmt.Errorf("room: heartbeats: there is no platform %q", of.Platform)
		case d < leastHeartbeat || d > most:
			return nil, fmt.Errorf("room: heartbeats: an interval of %s lies between %v and %v", of, leastHeartbeat, most)
		}
	}
	t := &beats{}
	for k, kind := range kindNames {
		for p := range platforms {
			t[k][p] = h.lookup(kind, push.Platform(p), standard)
		}
	}
	return t, nil
}

func (h Heartbeats) lookup(kind transport.Kind, p push.Platform, standard time.Duration) time.Duration {
	asked := []HeartbeatOf{{kind, p.String()}, {kind, ""}, {"", p.String()}}
	if kind == transport.LongPoll {
		asked, standard = asked[:2], defaultHold
	}
	for _, of := range asked {
		if d, ok := h[of]; ok {
			return d
		}
	}
	return standard
}

func isPlatform(name string) bool {
	_, ok := push.ParsePlatform(name)
	return ok
}

// String returns whom it is as the configuration writes it.
func (of HeartbeatOf) String() string {
	kind := cmp.Or(string(of.Transport), "*")
	if of.Platform == "" {
		return kind
	}
	return kind + "/" + of.Platform
}

// heartbeat is the interval of this session, in whole milliseconds, as its welcome names it.
func (s *session) heartbeat() time.Duration { return s.spread(s.room.beats[s.kind][s.platform]) }

// spread returns d less a part that is the device's own. The owner of a device's cursors is a hash: it says the same at every
// call without being kept, and it is another for every device.
func (s *session) spread(d time.Duration) time.Duration {
	part := d / beatSpread * time.Duration(s.owner&0xffff) / (1 << 16)
	return (d - part).Truncate(time.Millisecond)
}
