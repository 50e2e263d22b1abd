package registertest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"carillon/server/push"
	"carillon/server/register"
)

// raceForOneDevice lets two rooms insert one device again and again while both renew. The newest stays; every other
// session was replaced by exactly one, and ordered out exactly once.
func raceForOneDevice(t *testing.T, h *harness) {
	const each, workers = 40, 4
	rooms := []push.RoomID{north, south}
	for _, r := range rooms {
		h.join(r, 7)
	}
	k := key(shop, "alice", "phone")

	var mu sync.Mutex
	given := map[push.SessionEpoch]int{}
	replaced := map[push.SessionEpoch]int{}
	ordered := map[push.SessionEpoch]int{}
	note := func(orders []register.Order, err error) error {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range orders {
			ordered[o.Epoch]++
			if o.By.Epoch <= o.Epoch {
				return fmt.Errorf("epoch %d was ordered out by %d", o.Epoch, o.By.Epoch)
			}
		}
		return err
	}
	inserting := func(room push.RoomID) error {
		for range each {
			in, err := h.Register.Insert(h.ctx, session(k, room, 7), nil)
			if err != nil {
				return err
			}
			mu.Lock()
			given[in.Session.Epoch]++
			for _, s := range in.Replaced {
				replaced[s.Epoch]++
			}
			mu.Unlock()
			// A goodbye of a session that was replaced must find nothing to delete.
			for _, s := range in.Replaced {
				if ok, err := h.Register.Remove(h.ctx, s.Key, s.Epoch, s.Boot); ok || err != nil {
					return fmt.Errorf("late goodbye of %d: %v, %v", s.Epoch, ok, err)
				}
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	errs := make(chan error, 2*workers)
	for i := range workers {
		room := rooms[i%2]
		wg.Go(func() { errs <- inserting(room) })
		wg.Go(func() {
			var err error
			for range each {
				err = errors.Join(err, note(h.Register.Renew(h.ctx, room, 7)))
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range rooms {
		if err := note(h.renew(r, 7), nil); err != nil {
			t.Fatal(err)
		}
	}

	if len(given) != each*workers {
		t.Fatalf("%d sessions have %d epochs", each*workers, len(given))
	}
	var newest push.SessionEpoch
	for e := range given {
		newest = max(newest, e)
	}
	left := h.found(shop, "alice")
	if len(left) != 1 || left[0].Epoch != newest {
		t.Fatalf("left: %+v, want the one of epoch %d", left, newest)
	}
	h.wantCount(shop, 1)
	for e := range given {
		want := 1
		if e == newest {
			want = 0
		}
		if replaced[e] != want || ordered[e] != want {
			t.Errorf("epoch %d: replaced %d times, ordered out %d times, want %d", e, replaced[e], ordered[e], want)
		}
	}
}

// raceOfBoots lets a room come up with one boot after the other while sessions come and go, and compares the counts
// with what is found afterwards.
func raceOfBoots(t *testing.T, h *harness) {
	const boots, users = 20, 30
	user := func(i int) push.UserID { return push.UserID(fmt.Sprint("user-", i)) }
	h.join(north, 1)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	var boot sync.Map // of each epoch
	wg.Go(func() {
		for b := push.BootID(2); b <= boots; b++ {
			if err := h.Register.Join(h.ctx, register.Room{ID: north, Boot: b}); err != nil {
				errs <- err
				return
			}
		}
	})
	for w := range 3 {
		wg.Go(func() {
			for i := range boots * users {
				k := key(shop, user(i%users), push.DeviceID(fmt.Sprint("d", w)))
				b := push.BootID(1 + i/users)
				in, err := h.Register.Insert(h.ctx, session(k, north, b), nil)
				if push.KindOf(err) == push.KindConflict {
					continue // that boot is not there yet, or not any more
				}
				boot.Store(in.Session.Epoch, b)
				if err == nil && i%3 == 0 {
					_, err = h.Register.Remove(h.ctx, k, in.Session.Epoch, b)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	found := 0
	for i := range users {
		for _, s := range h.found(shop, user(i)) {
			if b, _ := boot.Load(s.Epoch); b != push.BootID(boots) {
				t.Fatalf("a session of boot %v counts", b)
			}
			found++
		}
	}
	h.wantCount(shop, found)
	h.join(north, boots+1)
	h.wantCount(shop, 0)
}
