//go:build failpoints

package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carillon/server/client"
	"carillon/server/failpoint"
	"carillon/server/history"
	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/transport/ws"
)

// load is a number of senders and devices around one server.
type load struct {
	p       *proc
	log     *history.Log
	devices []*device
	users   []string

	accepted atomic.Int64             // messages that are persistent, in all
	live     atomic.Int64             // messages that are not, accepted
	expected map[string]*atomic.Int64 // accepted for each user, broadcasts apart
	everyone atomic.Int64             // accepted broadcasts
	progress chan struct{}            // a token for each accepted one, if somebody listens
}

// newLoad returns one of so many users, each with two devices. The devices take the transports in turn.
func newLoad(p *proc, users int, over ...transport.Kind) *load {
	l := &load{p: p, log: history.NewLog(time.Now()), expected: make(map[string]*atomic.Int64), progress: make(chan struct{})}
	for i := range users {
		u := fmt.Sprintf("user%d", i)
		l.users = append(l.users, u)
		l.expected[u] = new(atomic.Int64)
		for _, d := range []string{"phone", "web"} {
			l.devices = append(l.devices, &device{name: history.Device{User: u, Device: d}, over: over[len(l.devices)%len(over)]})
		}
	}
	return l
}

// send sends one message, to one user or to everyone, until its outcome is known, repeating it under the same key across crashes.
func (l *load) send(ctx context.Context, c *http.Client, sender string, seq int, to string) {
	var users []string
	if to != "" {
		users = []string{to}
	}
	l.sendBody(ctx, c, sender, seq, users, fmt.Sprintf("%s/%d", sender, seq))
}

// sendBody is send to several users, with a body of its own.
func (l *load) sendBody(ctx context.Context, c *http.Client, sender string, seq int, to []string, body string) {
	key := fmt.Sprintf("%s-%d", sender, seq)
	rec := history.Record{
		Kind: history.Invoke, Sender: sender, Seq: seq, Key: key, Body: fmt.Sprintf("%q", body), Persistent: true, To: to, Everyone: to == nil,
	}
	audience := map[string]any{"users": to}
	if to == nil {
		audience = map[string]any{"everyone": true}
	}
	req := map[string]any{"to": audience, "message": map[string]any{"body": body}}
	for ctx.Err() == nil {
		l.log.Add(rec)
		status, answer := l.p.post(ctx, c, http.MethodPost, "/v1/messages", key, req)
		switch {
		case status == http.StatusCreated:
			id, _ := answer["id"].(string)
			l.log.Add(history.Record{Kind: history.OK, Sender: sender, Seq: seq, ID: id})
			l.accepted.Add(1)
			if to == nil {
				l.everyone.Add(1)
			}
			for _, u := range to {
				l.expected[u].Add(1)
			}
			select {
			case l.progress <- struct{}{}:
			default:
			}
			return
		case status == 0 || status >= 500 || status == http.StatusTooManyRequests:
			l.log.Add(history.Record{Kind: history.Unknown, Sender: sender, Seq: seq})
			pause(ctx, 5*time.Millisecond)
		default:
			l.p.t.Errorf("%s/%d was refused with %d %v", sender, seq, status, answer["code"])
			l.log.Add(history.Record{Kind: history.Fail, Sender: sender, Seq: seq})
			return
		}
	}
}

// sendLive sends one message to those who are online now, once.
func (l *load) sendLive(ctx context.Context, c *http.Client, sender string, seq int, to string) {
	body := fmt.Sprintf("%s/%d", sender, seq)
	l.log.Add(history.Record{Kind: history.Invoke, Sender: sender, Seq: seq, To: []string{to}, Body: fmt.Sprintf("%q", body)})
	status, answer := l.p.post(ctx, c, http.MethodPost, "/v1/messages", "", map[string]any{
		"to": map[string]any{"users": []string{to}}, "message": map[string]any{"body": body, "persistent": false},
	})
	if status != http.StatusAccepted {
		l.log.Add(history.Record{Kind: history.Unknown, Sender: sender, Seq: seq})
		pause(ctx, 5*time.Millisecond)
		return
	}
	id, _ := answer["id"].(string)
	l.log.Add(history.Record{Kind: history.OK, Sender: sender, Seq: seq, ID: id})
	l.live.Add(1)
}

// pause spreads repetitions; nothing waits for it.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// senders runs n senders until ctx ends; each ends with the outcome of its last message known. finish has to be another,
// longer context.
func (l *load) senders(ctx, finish context.Context, n int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := l.p.http()
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			name := fmt.Sprintf("sender%d", i)
			for seq := 1; ctx.Err() == nil; seq++ {
				to := l.users[rng.IntN(len(l.users))]
				switch rng.IntN(20) {
				case 0:
					to = ""
				case 1, 2, 3:
					l.sendLive(finish, c, name, seq, to)
					continue
				}
				l.send(finish, c, name, seq, to)
			}
		})
	}
	return &wg
}

// rest waits until every device has everything that was accepted, and judges the history.
func (l *load) rest(t *testing.T) {
	t.Helper()
	want := func(d *device) int64 { return l.expected[d.name.User].Load() + l.everyone.Load() }
	for _, d := range l.devices {
		eventually(t, 60*time.Second, func() bool { return d.seen.Load() >= want(d) },
			func() string { return fmt.Sprintf("%d messages are due: %s", want(d), d.where()) })
	}
	for _, d := range l.devices {
		d.leave(t)
	}
	run := history.Run{}
	for _, d := range l.devices {
		run.Devices = append(run.Devices, d.name)
	}
	records := l.log.Records()
	vs := history.Check(run, records)
	for i, v := range vs {
		if i == 20 {
			t.Errorf("and %d more", len(vs)-i)
			break
		}
		t.Error(v)
	}
}

func TestCrash_FiftyKillsLoseNothingAcceptedAndRepeatNothing(t *testing.T) {
	const kills = 50
	p := newProc(t, plainBinary)
	if !p.start("") {
		t.Fatalf("the server died:\n%s", p.log.String())
	}
	l := newLoad(p, 4, overs...)
	ctx := t.Context()
	var up sync.WaitGroup
	for _, d := range l.devices {
		var once sync.Once
		up.Add(1)
		p.connect(ctx, d, l.log, func() { once.Do(up.Done) })
	}
	up.Wait() // every device exists before the first message is sent
	sending, enough := context.WithCancel(ctx)
	defer enough()
	wg := l.senders(sending, ctx, 8)
	rng := rand.New(rand.NewPCG(1, 1))
	for range kills {
		for range rng.IntN(150) { // at a random moment of the work, not of the clock
			<-l.progress
		}
		p.kill()
		if !p.start("") {
			t.Fatalf("the server did not come back:\n%s", p.log.String())
		}
	}
	enough()
	wg.Wait()
	l.rest(t)
	t.Logf("%d kills, %d messages accepted, %d of them to everyone, %d more that were not to be kept, %d records",
		kills, l.accepted.Load(), l.everyone.Load(), l.live.Load(), len(l.log.Records()))
}

// killPoints says, for each failpoint, at which of its hits the server is killed, so that work is under way.
var killPoints = map[failpoint.Name][]int{
	failpoint.IDsReserved:           {1},
	failpoint.SaverPublishApplied:   {1, 20},
	failpoint.SaverPublishSynced:    {1, 20},
	failpoint.CenterPublishStored:   {1, 20},
	failpoint.CenterPublishNotified: {1, 20},
	failpoint.CenterRecallStored:    {1},
	failpoint.RoomNotified:          {1, 20},
	failpoint.SaverOpenApplied:      {1, 3},
	failpoint.RoomOpened:            {1, 3},
	failpoint.RoomAckTaken:          {1, 3},
	failpoint.SaverAckApplied:       {1, 3},
	failpoint.SaverRecallApplied:    {1},
	failpoint.SaverSweepApplied:     {1},
	failpoint.CatalogWritten:        {1, 3},
}

func TestCrash_AtEachFailpointNothingIsLostOrRepeated(t *testing.T) {
	for _, name := range failpoint.All() {
		hits, ok := killPoints[name]
		if !ok {
			t.Errorf("failpoint %s has no case", name)
		}
		for _, hit := range hits {
			point := fmt.Sprintf("%s=kill@%d", name, hit)
			for _, over := range overs {
				t.Run(fmt.Sprintf("%s@%d/%s", name, hit, over), func(t *testing.T) { killAt(t, "auto", point, over) })
			}
			if poller.Supported { // once more for what holds connections where there is no epoll, over all of them at once
				t.Run(fmt.Sprintf("%s@%d/%s", name, hit, ws.EngineGoroutine), func(t *testing.T) {
					killAt(t, ws.EngineGoroutine, point, overs...)
				})
			}
		}
	}
}

// killAt runs a small load against a server that dies at the point, starts it again without, and judges the history.
func killAt(t *testing.T, engine ws.Engine, point string, over ...transport.Kind) {
	p := newProc(t, failpointBinary)
	p.engine = string(engine)
	if strings.HasPrefix(point, string(failpoint.SaverSweepApplied)) {
		leaveSomethingExpired(t, p)
	}
	started := p.start(point)
	if !started && !p.start("") { // it died while it set itself up; what it had written is there
		t.Fatalf("the server did not come back:\n%s", p.log.String())
	}
	died := p.died
	ctx := t.Context()
	l := newLoad(p, 2, over...)
	for _, d := range l.devices {
		p.connect(ctx, d, l.log, nil)
	}
	sending, enough := context.WithCancel(ctx)
	defer enough()
	wg := l.senders(sending, ctx, 4)
	recalls := l.recaller(sending, ctx, "nobody")
	if started {
		select {
		case <-died:
		case <-time.After(60 * time.Second):
			_ = p.cmd.Process.Signal(syscall.SIGQUIT) // leaves its goroutines in the log
			<-died
			t.Fatalf("the server was never killed at %s:\n%s", point, p.log.String())
		}
		if !p.start("") {
			t.Fatalf("the server did not come back:\n%s", p.log.String())
		}
	}
	for range 50 {
		<-l.progress
	}
	// A second device that is new begins at the head: it has to be there before the markers are sent.
	for _, d := range l.devices {
		eventually(t, 30*time.Second, func() bool { s := d.last.Load(); return s != nil && s.Phase == client.CaughtUp }, d.where)
	}
	enough()
	wg.Wait()
	recalls.Wait()
	// Devices may have been made after the first messages: what counts is that nothing is invented, repeated or reordered, and
	// that each user's first device misses nothing.
	l.restOfFirstDevices(t)
}

// leaveSomethingExpired has a life of the server end with a message that expired: the next life's first sweep finds it.
func leaveSomethingExpired(t *testing.T, p *proc) {
	t.Helper()
	if !p.start("") {
		t.Fatalf("the server died:\n%s", p.log.String())
	}
	over := sendForASecond(t, p)
	p.kill()
	waitUntil(t, over)
}

// sendForASecond publishes a message that expires, and returns when.
func sendForASecond(t *testing.T, p *proc) time.Time {
	t.Helper()
	status, answer := p.post(t.Context(), p.http(), http.MethodPost, "/v1/messages", "", map[string]any{
		"to": map[string]any{"users": []string{"nobody"}}, "message": map[string]any{"body": 1, "ttl_seconds": 1},
	})
	if status != http.StatusCreated {
		t.Fatalf("publishing: %d %v", status, answer)
	}
	expires, err := time.Parse(time.RFC3339, answer["expires"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return expires
}

func waitUntil(t *testing.T, at time.Time) {
	t.Helper()
	eventually(t, 10*time.Second, func() bool { return time.Now().After(at) }, func() string { return "it did not expire" })
}

// recaller sends messages to users of its own, without devices, and takes them back.
func (l *load) recaller(ctx, finish context.Context, users ...string) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		c := l.p.http()
		for seq := 1; ctx.Err() == nil; seq++ {
			status, answer := l.p.post(finish, c, http.MethodPost, "/v1/messages", fmt.Sprintf("recall-%d", seq), map[string]any{
				"to": map[string]any{"users": users}, "message": map[string]any{"body": seq},
			})
			id, _ := answer["id"].(string)
			if status != http.StatusCreated {
				pause(ctx, 5*time.Millisecond)
				continue
			}
			for status = 0; status != http.StatusOK && finish.Err() == nil; {
				if status, _ = l.p.post(finish, c, http.MethodDelete, "/v1/messages/"+id, "", nil); status == http.StatusNotFound {
					l.p.t.Errorf("the accepted message %s is unknown", id)
					return
				} else if status != http.StatusOK {
					pause(finish, 5*time.Millisecond)
				}
			}
		}
	})
	return &wg
}

// restOfFirstDevices is rest for devices that connected while messages were sent: only what the checker can know.
func (l *load) restOfFirstDevices(t *testing.T) {
	t.Helper()
	// A marker to each user, sent now: whoever has it, has everything before it in the own slot.
	ctx := t.Context()
	c := l.p.http()
	for _, u := range l.users {
		l.send(ctx, c, "marker-"+u, 1, u)
	}
	arrived := func(d *device) bool {
		for _, r := range l.log.Records() {
			if r.Kind == history.Deliver && r.Device == d.name && r.Body == fmt.Sprintf("%q", "marker-"+d.name.User+"/1") {
				return true
			}
		}
		return false
	}
	for _, d := range l.devices {
		eventually(t, 60*time.Second, func() bool { return arrived(d) }, func() string { return "the marker is missing: " + d.where() })
	}
	for _, d := range l.devices {
		d.leave(t)
	}
	for i, v := range history.Check(history.Run{}, l.log.Records()) {
		if i == 20 {
			t.Error("and more")
			break
		}
		t.Error(v)
	}
	l.checkFirst(t)
}

// checkFirst judges that of each user's two devices at least one, the first, got every accepted message to the user.
func (l *load) checkFirst(t *testing.T) {
	t.Helper()
	got := make(map[string]map[history.Device]int64)
	for _, r := range l.log.Records() {
		if r.Kind == history.Deliver && r.Slot == 0 {
			if got[r.Device.User] == nil {
				got[r.Device.User] = make(map[history.Device]int64)
			}
			got[r.Device.User][r.Device]++
		}
	}
	for _, u := range l.users {
		most := int64(0)
		for _, n := range got[u] {
			most = max(most, n)
		}
		if want := l.expected[u].Load(); most < want {
			t.Errorf("the first device of %s got %d of %d accepted messages", u, most, want)
		}
	}
}
