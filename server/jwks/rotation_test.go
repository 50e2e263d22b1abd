package jwks

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/catalog/memory"
	"carillon/server/push"
)

// Connects go on all the time while a product rotates its keys: publishes a second one, signs with it from that moment on,
// and takes the first one back when it is not needed any more.
func TestRotation_RefusesNoTokenThatHoldsAndTakesNoneOfARetiredKey(t *testing.T) {
	inTown(t, nil, func(w *town, s *site) {
		s.set(func(s *site) { s.takes = 300 * time.Millisecond })
		keys := catalog.NewCache(memory.New(memory.Config{}), catalog.CacheConfig{})
		if _, err := keys.CreateProduct(w.t.Context(), catalog.Product{ID: "shop", JWKS: shop().JWKS}); err != nil {
			w.t.Fatal(err)
		}
		verify, err := auth.NewVerifier(auth.Config{Keys: keys, Sets: w.cache})
		if err != nil {
			w.t.Fatal(err)
		}
		sign := func(id catalog.KeyID, user int) string {
			token, err := auth.Mint(auth.SigningKey{ID: id, Alg: catalog.EdDSA, Private: private().ed}, auth.Claims{
				Product: "shop", User: push.UserID(fmt.Sprint("u", user)), Device: "phone", Issued: time.Now(), Expires: time.Now().Add(time.Hour),
			})
			if err != nil {
				w.t.Error(err)
			}
			return token
		}
		began := time.Now()
		published, retired, over := 15*time.Minute, 30*time.Minute, 45*time.Minute
		s.publish(w.t, "first")

		var mu sync.Mutex
		outcomes := map[string]int{}
		var all sync.WaitGroup
		for user := range 4 {
			all.Go(func() {
				time.Sleep(time.Duration(user) * 2500 * time.Millisecond)
				for at := time.Since(began); at < over; at = time.Since(began) {
					for _, id := range []catalog.KeyID{"first", "second"} {
						if id == "second" && at <= published {
							continue // nobody has it yet
						}
						_, err := verify.Verify(w.t.Context(), sign(id, user))
						outcome := "taken"
						switch {
						case err != nil && auth.ReasonOf(err) == auth.ReasonUnknownKey:
							outcome = "refused"
						case push.KindOf(err) == push.KindUnavailable && err != nil:
							outcome = "later"
						case err != nil:
							t.Errorf("%v: %v", id, err)
						}
						now := time.Since(began)
						switch {
						case outcome == "refused" && (id == "second" || now < retired):
							t.Errorf("a token of the %s key was refused at %v", id, now)
						case outcome == "taken" && id == "first" && at > retired+10*time.Minute+10*time.Second:
							t.Errorf("a token of the retired key was taken at %v", now)
						case outcome == "later" && id == "first" && at > 10*time.Second && at < retired,
							outcome == "later" && id == "second" && at > published+20*time.Second:
							t.Errorf("a token of the %s key could not be judged at %v", id, now)
						}
						mu.Lock()
						outcomes[string(id)+" "+outcome]++
						mu.Unlock()
					}
					time.Sleep(10 * time.Second)
				}
			})
		}
		time.Sleep(published)
		s.publish(w.t, "first", "second")
		time.Sleep(retired - published)
		s.publish(w.t, "second")
		all.Wait()
		if outcomes["first taken"] < 500 || outcomes["first refused"] < 50 || outcomes["second taken"] < 500 {
			t.Errorf("outcomes %v: the test shows little", outcomes)
		}
		if outcomes["second later"] > 4*4 {
			t.Errorf("%d tokens of the second key had to come again, want those of a few seconds", outcomes["second later"])
		}
	})
}
