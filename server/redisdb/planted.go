package redisdb

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"carillon/server/push"

	"github.com/redis/go-redis/v9"
)

// askReplica is the planted bug ReplicaRead: it answers reads by what the first replica of the primary holds, as if the primary had said
// it, and reports whether it did. No function is called, as ours refuse there. The linker drops it where there are no planted bugs.
func (db *DB) askReplica(ctx context.Context, rs []*Read) bool {
	p := db.layout.slots[0].Load()
	info, err := p.plain.Info(ctx, "replication").Result()
	if err != nil {
		return false
	}
	// slave0:ip=127.0.0.1,port=6380,state=online,offset=14,lag=1
	where := make(map[string]string)
	for pair := range strings.SplitSeq(infoField(info, "slave0"), ",") {
		name, value, _ := strings.Cut(pair, "=")
		where[name] = value
	}
	lineage, err := strconv.ParseUint(fmt.Sprintf("%.15s", infoField(info, "master_replid")), 16, 63)
	if err != nil || where["port"] == "" {
		return false
	}
	c := redis.NewClient(db.options(net.JoinHostPort(where["ip"], where["port"])))
	defer c.Close()
	now := time.Now()
	if db.config.Clock != nil {
		now = db.config.Clock.Now()
	}
	for _, r := range rs {
		r.Replies, r.Answer = nil, Answer{Lineage: push.Lineage(lineage), Now: push.MilliTime(now.UnixMilli())}
		for i := range r.Do {
			cmd := &r.Do[i]
			if cmd.log != nil {
				return false
			}
			reply, err := c.Do(ctx, append([]any{cmd.Name, cmd.Key}, cmd.Args...)...).Result()
			if err != nil && err != redis.Nil {
				r.Replies, r.Answer = nil, Answer{Err: errUnknown(err)}
				break
			}
			if all, ok := reply.([]any); ok && r.Texts {
				texts := make([]string, len(all))
				for k, v := range all {
					texts[k], _ = v.(string)
				}
				reply = texts
			}
			r.Replies = append(r.Replies, reply)
		}
	}
	return true
}
