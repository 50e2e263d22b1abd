package torture

import (
	"cmp"
	"fmt"
	"time"

	"carillon/server/redistest"
)

// Form says what the gateway stands on.
type Form string

// The forms.
const (
	Embedded   Form = "embedded"   // one node on its own files
	Standalone Form = "standalone" // three rooms and two centers on one Redis
	Sentinel   Form = "sentinel"   // the same on a primary with two replicas and three sentinels
	Cluster    Form = "cluster"    // the same on three masters, each with a replica
)

// Durability is the value of redis.durability. Only that of Replicated outlives a failover.
type Durability string

// The durabilities.
const (
	Process    Durability = "process"
	Replicated Durability = "replicated"
)

// Config says what is tormented, and how long.
type Config struct {
	Binary     string        // of carillon
	Form       Form          // Standalone
	Durability Durability    // Replicated where there are replicas, Process elsewhere
	Length     time.Duration // of the faults; setting up and coming to rest take their time besides
	Seed       uint64
	Rate       int           // messages a second that senders offer in all, those that are not persistent among them; 0: as many as Senders come to
	Senders    int           // of messages one by one; 6
	Users      int           // each with two devices; 8, or one for perUser messages a second of the rate
	Pause      time.Duration // of a sender between two messages, about; 20 ms, or so long that half of the rate are sent one by one at most
	Dir        string        // for data, and for the histories if something was found; it exists
	Keep       bool          // the histories are left there in any case
	Env        []string      // more of every node's environment
	Say        func(string)  // told what happens; may be nil
}

// maxRate is the highest rate: there are users for it, and devices that keep up.
const maxRate = 20_000

// perUser is how many messages a second a user gets, about, if the rate says how many users there are. A client knows a repeat among the last
// 1 000 messages, and a slot keeps 1 000 unless its product says otherwise: those come in 50 s, and no device is away for so long.
const perUser = 20

// batchSenders is how many senders send in batches what the rate asks for and the others do not send.
const batchSenders = 4

// limits are those of the product. At a rate a slot keeps ten times as much as by default: a gap would excuse all that was sent before it. And
// keys, which no sender repeats for longer than a healing takes, do not fill Redis.
func (c Config) limits() map[string]any {
	if c.Rate == 0 {
		return nil
	}
	return map[string]any{"own_messages": 10_000, "key_ttl_seconds": int((2 * patience).Seconds())}
}

func (c Config) withDefaults() (Config, error) {
	c.Form = cmp.Or(c.Form, Standalone)
	if c.Rate < 0 || c.Rate > maxRate {
		return c, fmt.Errorf("torture: %d messages a second are not offered; 0 to %d are", c.Rate, maxRate)
	}
	c.Senders = cmp.Or(c.Senders, 6)
	c.Users = cmp.Or(c.Users, max(8, (c.Rate+perUser-1)/perUser))
	if c.Pause == 0 {
		c.Pause = 20 * time.Millisecond
		if c.Rate > 0 {
			c.Pause = max(c.Pause, time.Duration(2*c.Senders)*time.Second/time.Duration(c.Rate))
		}
	}
	if c.Say == nil {
		c.Say = func(string) {}
	}
	switch c.Form {
	case Embedded, Standalone:
		if c.Durability = cmp.Or(c.Durability, Process); c.Durability != Process {
			return c, fmt.Errorf("torture: %s has no replicas", c.Form)
		}
	case Sentinel, Cluster:
		c.Durability = cmp.Or(c.Durability, Replicated)
	default:
		return c, fmt.Errorf("torture: there is no form %q; there are embedded, standalone, sentinel and cluster", c.Form)
	}
	if c.Durability != Process && c.Durability != Replicated {
		return c, fmt.Errorf("torture: durability %q is not tormented; process and replicated are", c.Durability)
	}
	if c.Length <= 0 {
		return c, fmt.Errorf("torture: a run of %v breaks nothing", c.Length)
	}
	return c, nil
}

// replicas is how many replicas have a message before it is accepted: all that may be promoted.
func (c Config) replicas() int {
	switch {
	case c.Durability != Replicated:
		return 0
	case c.Form == Sentinel:
		return 2
	}
	return 1
}

// redis is the form in the words of the kit.
func (c Config) redis() redistest.Form { return redistest.Form(c.Form) }
