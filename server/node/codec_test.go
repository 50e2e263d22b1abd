package node

import (
	"reflect"
	"testing"

	"carillon/server/push"
)

func deliveries() []*push.Delivery {
	filter := &push.Filter{Devices: []push.DeviceID{"phone"}, Platforms: 5, Classes: []string{"mobile"}, Tags: &push.TagExpr{
		All: []push.TagTerm{{Tag: "vip"}}, Not: []push.TagTerm{{Tag: "trial"}},
	}}
	place := push.Place{Epoch: 1 << 62, Lineage: 1<<64 - 1, Pos: 1 << 52}
	m := &push.Message{
		ID: 1 << 62, Ref: "r", Kind: push.BodyBinary, Body: []byte{0, 1}, Persistent: true, Created: 5, Expires: 6, CollapseKey: "k",
		Headers: []push.Header{{Name: "a", Value: "b"}},
	}
	return []*push.Delivery{
		{Product: "shop", Message: m, Lineage: 1 << 60, Filter: filter, Own: []push.OwnPlace{{User: "alice", Place: place}, {User: "bob", Place: place, Filter: filter}}},
		{Product: "shop", Recall: 9, Common: []push.CommonPlace{{Shard: 0, Place: place}, {Shard: 1023, Place: place}}},
		{Product: "s", Message: &push.Message{ID: 1, Task: true}, Everyone: true},
		{Product: "s", Lineage: 7, Common: []push.CommonPlace{{Shard: 3, Place: place}}, Filter: filter},
		{Product: "s", Message: &push.Message{ID: 1, Body: []byte("1")}, Users: []push.UserFilter{{User: "alice"}, {User: "{bob}:\x00", Filter: filter}}},
	}
}

func TestDelivery_IsReadAsItWasWritten(t *testing.T) {
	for _, want := range deliveries() {
		enc := appendDelivery([]byte("before"), want)[len("before"):]
		got, err := decodeDelivery(enc)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		for n := range enc { // cut off anywhere
			if d, err := decodeDelivery(enc[:n]); err == nil {
				t.Errorf("%d of %d bytes were read as %+v", n, len(enc), d)
			}
		}
		for i := range enc {
			enc[i] ^= 0xff
		}
		_, _ = decodeDelivery(enc) // whatever it is, it does not panic
	}
}

func FuzzDelivery(f *testing.F) {
	for _, d := range deliveries() {
		f.Add(appendDelivery(nil, d))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDelivery(b)
		if err != nil {
			return
		}
		again, err := decodeDelivery(appendDelivery(nil, d))
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("got %+v, %v, want %+v", again, err, d)
		}
	})
}
